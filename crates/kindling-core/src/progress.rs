//! Progress reports of long calls, which are also how a caller cancels one.

use std::sync::{Mutex, PoisonError};

use crate::Result;

/// Called from time to time with (bytes done, total bytes). An error it returns, such as
/// `Error::Cancelled`, ends the call with that error, and the call leaves nothing behind.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// A `Progress` that may be called from another thread.
pub type SendProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + Send + 'a;

/// A `Progress` that several threads call.
pub(crate) type Report<'a> = &'a (dyn Fn(u64, u64) -> Result<()> + Sync + 'a);

/// Makes a `Report` of `progress`.
pub(crate) fn shared(progress: &mut SendProgress<'_>) -> impl Fn(u64, u64) -> Result<()> + Sync {
    let progress = Mutex::new(progress);
    move |done, total| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        (*progress)(done, total)
    }
}

/// Ignores all reports.
///
/// # Errors
/// None.
pub fn silent(_done: u64, _total: u64) -> Result<()> {
    Ok(())
}
