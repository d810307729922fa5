//! Progress reports of long calls, through which a caller also cancels one.

use std::sync::{Mutex, PoisonError};

use crate::Result;

/// A callback that a long call calls from time to time with the work done and in total, in bytes
/// unless the call says otherwise. If it returns an error, such as `Error::Cancelled`, the call
/// ends with that error and leaves nothing behind.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// A `Progress` that may be called from another thread.
pub type SendProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + Send + 'a;

/// A `Progress` that several threads may call at once.
pub(crate) type Report<'a> = &'a (dyn Fn(u64, u64) -> Result<()> + Sync + 'a);

/// Makes a `Report` from `progress`.
pub(crate) fn shared(progress: &mut SendProgress<'_>) -> impl Fn(u64, u64) -> Result<()> + Sync {
    let progress = Mutex::new(progress);
    move |done, total| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        (*progress)(done, total)
    }
}

/// Counts the work done of a known total, and reports it.
pub(crate) struct Counted<'a, 'b> {
    done: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
}

impl<'a, 'b> Counted<'a, 'b> {
    pub fn new(total: u64, progress: &'a mut Progress<'b>) -> Self {
        Self { done: 0, total, progress }
    }

    /// Adds `amount` to the work done.
    ///
    /// # Errors
    /// Returns the error of the callback, such as `Error::Cancelled`.
    pub fn add(&mut self, amount: u64) -> Result<()> {
        self.done += amount;
        (self.progress)(self.done, self.total)
    }
}

/// Returns the number of bytes that `elements` take as f32.
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
