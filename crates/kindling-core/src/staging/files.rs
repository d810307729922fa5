//! Atomic writes of files, and syncing of files and folders.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::dead::is_at;
use crate::error::IoAction;
use crate::{Error, Result};

/// Writes a file in place and syncs it.
///
/// # Errors
/// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` and other I/O errors.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(IoAction::Write, path, error))
}

/// Replaces the file `path` completely or not at all, and syncs it to disk.
///
/// The bytes go to `<path>.tmp`, which is synced and renamed to `path`; then the folder is synced.
/// A second process that replaces the same file waits for the first.
///
/// # Errors
/// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO` if the file cannot be written; `path` is
/// then unchanged and nothing else is left behind.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let mut file =
        open_locked(temporary).map_err(|error| Error::io(IoAction::Write, path, error))?;
    let mut write = || {
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(temporary, path)
    };
    if let Err(error) = write() {
        let _ = std::fs::remove_file(temporary);
        return Err(Error::io(IoAction::Write, path, error));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Opens or creates a file and locks it for this process, waiting for the lock.
fn open_locked(path: &Path) -> std::io::Result<File> {
    loop {
        let file = File::options().create(true).write(true).truncate(false).open(path)?;
        // Not every file system has locks.
        if file.lock().is_err() || is_at(&file, path) {
            return Ok(file);
        }
        // The process that held the lock has renamed the file meanwhile, so try again.
    }
}

/// Syncs the entries of `folder`, so that renames in it are durable.
///
/// # Errors
/// Returns `ERR_DISK_FULL` and other I/O errors.
pub fn sync_folder(folder: &Path) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot sync a folder, and then nothing more can be done.
        Err(error) if !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => {
            Err(Error::io(IoAction::Write, folder, error))
        }
        _ => Ok(()),
    }
}

/// Syncs the files in `folder` with one call for the whole file system. A store has thousands of
/// files, and syncing each would cost a journal commit per file.
///
/// # Errors
/// Returns `ERR_DISK_FULL` and other I/O errors.
#[cfg(target_os = "linux")]
pub fn sync_files(folder: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let file = File::open(folder).map_err(|error| Error::io(IoAction::Read, folder, error))?;
    // SAFETY: syncfs takes only a descriptor, which stays open during the call.
    match unsafe { libc::syncfs(file.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Error::io(IoAction::Write, folder, std::io::Error::last_os_error())),
    }
}

/// Syncs the files in `folder` one by one.
///
/// # Errors
/// Returns `ERR_DISK_FULL` and other I/O errors.
#[cfg(not(target_os = "linux"))]
pub fn sync_files(folder: &Path) -> Result<()> {
    let cannot_write = |error| Error::io(IoAction::Write, folder, error);
    for entry in std::fs::read_dir(folder).map_err(cannot_write)? {
        let path = entry.map_err(cannot_write)?.path();
        let file = File::options().write(true).open(&path).map_err(cannot_write)?;
        file.sync_all().map_err(cannot_write)?;
    }
    sync_folder(folder)
}
