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

/// Counts what is done of a known total, and reports it.
pub(crate) struct Counted<'a, 'b> {
    done: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
}

impl<'a, 'b> Counted<'a, 'b> {
    pub fn new(total: u64, progress: &'a mut Progress<'b>) -> Self {
        Self { done: 0, total, progress }
    }

    /// Adds to what is done.
    ///
    /// # Errors
    /// Returns the error of the progress, such as `Error::Cancelled`.
    pub fn add(&mut self, amount: u64) -> Result<()> {
        self.done += amount;
        (self.progress)(self.done, self.total)
    }
}

/// The bytes that `elements` take as f32.
pub(crate) fn f32_bytes(elements: usize) -> u64 {
    (elements * size_of::<f32>()) as u64
}

/// Ignores all reports.
///
/// # Errors
/// None.
pub fn silent(_done: u64, _total: u64) -> Result<()> {
    Ok(())
}
