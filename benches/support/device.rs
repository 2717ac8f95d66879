//! Where a benchmark computes: the CPU, or a backend that this build has.

#![cfg_attr(feature = "tch", allow(deprecated))]

use burn::tensor::Device;
#[cfg(feature = "wgpu-plain")]
use burn::tensor::DeviceKind;
use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// flex.
    Cpu,
    /// LibTorch on the CPU: the matrix products that the reference runs on.
    #[cfg(feature = "tch")]
    Torch,
    /// CUDA where it is built in, else wgpu.
    Gpu,
    /// CUDA.
    #[cfg(feature = "cuda")]
    Cuda,
    /// wgpu by SPIR-V.
    #[cfg(feature = "vulkan")]
    Vulkan,
    /// wgpu with the platform's interface and shaders of its own language.
    #[cfg(feature = "wgpu-plain")]
    Wgpu,
}

impl On {
    pub fn device(self) -> Result<Device, String> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "tch")]
            Self::Torch => Ok(Device::libtorch()),
            #[cfg(feature = "cuda")]
            Self::Gpu | Self::Cuda => Ok(Device::cuda(0)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(DeviceKind::DefaultDevice)),
            #[cfg(all(feature = "wgpu-plain", not(feature = "cuda")))]
            Self::Gpu | Self::Wgpu => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
            #[cfg(all(feature = "wgpu-plain", feature = "cuda"))]
            Self::Wgpu => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
            #[cfg(not(any(feature = "wgpu-plain", feature = "cuda")))]
            Self::Gpu => {
                Err("built without a GPU backend: add `--features wgpu` or `--features cuda`".into())
            }
        }
    }
}
