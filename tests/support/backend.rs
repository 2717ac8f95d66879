//! The device that the tests run on, and the precisions that it has.

use std::sync::Once;

use burn::tensor::{DType, Device};

use crate::aloud::say;

/// The CPU; a GPU with `DELTA_INFLUENCE_DEVICE` at `wgpu`, `vulkan` or `cuda` and the feature of that name.
///
/// # Panics
/// If the environment asks for a device that this build does not have.
pub fn device() -> Device {
    match std::env::var("DELTA_INFLUENCE_DEVICE").as_deref() {
        Err(_) | Ok("" | "flex") => Device::flex(),
        #[cfg(feature = "wgpu-plain")]
        Ok("wgpu") => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "vulkan")]
        Ok("vulkan") => Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Ok("cuda") => Device::cuda(0),
        Ok(other) => panic!("DELTA_INFLUENCE_DEVICE={other}: not in this build (wgpu needs --features wgpu)"),
    }
}

/// The floating-point types to test: f32, and f64 where the device computes in it.
pub fn precisions() -> Vec<DType> {
    match device() == Device::flex() {
        true => vec![DType::F32, DType::F64],
        false => {
            static SAID: Once = Once::new();
            SAID.call_once(|| say("F64 NOT CHECKED: the device computes in f32 only"));
            vec![DType::F32]
        }
    }
}
