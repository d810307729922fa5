//! Errors of the driver.

use cudarc::driver::DriverError;

use crate::Error;

/// Returns `ERR_DEVICE` for a driver call that failed.
pub(super) fn failed(error: DriverError) -> Error {
    Error::Device(format!("{:?}", error.0))
}
