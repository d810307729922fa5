//! Reads files that are held in memory as a whole: metadata, vocabularies, states.
//!
//! Files are not trusted, so only regular ones are read, up to a size that real ones do not reach:
//! a link to /dev/zero would never end, and a FIFO would wait for a writer that never comes.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

use crate::error::IoAction;
use crate::{Error, Result};

/// The largest file that is read as a whole, in bytes.
const LARGEST: u64 = 256 << 20;

/// Opens a regular file for reading. Returns it and its size in bytes.
///
/// # Errors
/// Returns the error that `invalid` makes from a message if `path` is not a regular file, and I/O
/// errors.
pub(crate) fn open_regular(path: &Path, invalid: fn(String) -> Error) -> Result<(File, u64)> {
    let cannot_read = |error| Error::io(IoAction::Read, path, error);
    let mut options = OpenOptions::new();
    options.read(true);
    // Opens a FIFO at once, instead of waiting for its first writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(cannot_read)?;
    let status = file.metadata().map_err(cannot_read)?;
    if !status.is_file() {
        let what = if status.is_dir() { "a folder" } else { "a device or a pipe" };
        return Err(invalid(format!("{} is {what}; give a regular file", path.display())));
    }
    Ok((file, status.len()))
}

/// Reads a whole regular file.
///
/// # Errors
/// As `open_regular`, and also the error of `invalid` for a file above 256 MiB.
pub(crate) fn read_whole(path: &Path, invalid: fn(String) -> Error) -> Result<Vec<u8>> {
    let (file, bytes) = open_regular(path, invalid)?;
    let mut content = Vec::new();
    if bytes <= LARGEST {
        // The file may grow while it is read.
        file.take(LARGEST + 1)
            .read_to_end(&mut content)
            .map_err(|error| Error::io(IoAction::Read, path, error))?;
    }
    if bytes.max(content.len() as u64) > LARGEST {
        let limit = LARGEST >> 20;
        return Err(invalid(format!("{} is larger than the limit of {limit} MiB", path.display())));
    }
    Ok(content)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::test_support::Folder;

    #[test]
    fn devices_pipes_folders_and_huge_files_are_refused_at_once() {
        let root = Folder::new();
        let zeros = root.path().join("zeros");
        std::os::unix::fs::symlink("/dev/zero", &zeros).unwrap();
        let pipe = root.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: `name` is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let huge = root.path().join("huge");
        File::create(&huge).unwrap().set_len(1 << 40).unwrap();
        for path in [&zeros, &pipe, root.path(), &huge] {
            let error = read_whole(path, Error::InvalidStore).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_STORE", "{}", path.display());
        }
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.file("text", "text"), &link).unwrap();
        assert_eq!(read_whole(&link, Error::InvalidStore).unwrap(), b"text");
        let missing = read_whole(&root.path().join("none"), Error::InvalidStore).unwrap_err();
        assert_eq!(missing.code(), "ERR_NOT_FOUND");
    }
}
