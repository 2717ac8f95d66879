//! Devices that are absent or lost: burn panics, and what is known of it becomes an error that names the device and the
//! work.

use burn::tensor::{Device, Tensor};

use super::PassError;
use crate::items::caught;

/// Computes something on the device and looks at the result: a device without adapter or driver is made without a word,
/// and panics when it is first used. Worth a call before a long run, to fall back on another device or to say so.
///
/// # Errors
/// [`PassError::Device`], with what the device's backend said. (The panic's own message goes to standard error, as any
/// does.)
///
/// ```
/// use burn::tensor::Device;
/// use burn_delta_influence::capture::check_device;
///
/// check_device(&Device::flex())?;
/// # Ok::<(), burn_delta_influence::capture::PassError>(())
/// ```
pub fn check_device(device: &Device) -> Result<(), PassError> {
    on_device(device, "1 + 1", || {
        let got = Tensor::<1>::ones([2], device).sum().into_scalar::<f32>();
        if got == 2.0 { Ok(()) } else { Err(failed(device, "1 + 1", format!("the result is {got}"))) }
    })
}

/// What `compute` returns; where it panics, an error.
pub(crate) fn on_device<T, E: From<PassError>>(
    device: &Device,
    work: &str,
    compute: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    caught(compute).unwrap_or_else(|said| Err(failed(device, work, said).into()))
}

pub(crate) fn failed(device: &Device, work: &str, said: String) -> PassError {
    PassError::Device { device: format!("{device:?}"), work: work.to_owned(), said }
}
