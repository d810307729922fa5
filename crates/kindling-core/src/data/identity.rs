//! Recognizing that a file has been replaced or changed since it was opened.

use std::fs::Metadata;

/// Properties that identify the contents of a file. Outside Unix this is the size alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Time of the last modification, in seconds and nanoseconds.
    modified: (i64, i64),
}

impl Identity {
    #[cfg(unix)]
    pub fn of(status: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            device: status.dev(),
            inode: status.ino(),
            bytes: status.len(),
            modified: (status.mtime(), status.mtime_nsec()),
        }
    }

    #[cfg(not(unix))]
    pub fn of(status: &Metadata) -> Self {
        Self { device: 0, inode: 0, bytes: status.len(), modified: (0, 0) }
    }
}
