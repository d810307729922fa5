//! How a long call reports how far it is, and how it is asked to stop.

use crate::Result;

/// Called now and then with (bytes done, bytes in all). An error it returns (`Error::Cancelled` when the caller asked to
/// stop) ends the call with that error, and nothing of it stays behind.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Called as `Progress` is, by whichever thread reads.
pub type SendProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + Send + 'a;

/// Reports to nobody.
///
/// # Errors
/// None.
pub fn silent(_done: u64, _total: u64) -> Result<()> {
    Ok(())
}
