//! Reads the zip archives that PyTorch writes: uncompressed entries in one folder.
//!
//! The directory at the end of the file says where the entries are; nothing is unpacked.
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>, 4.3 and 4.5.3.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::IoAction;
use crate::exchange::tensor_files::damaged;
use crate::{Error, Result};

/// Bytes of the end record with the longest comment.
const LONGEST_END: u64 = 22 + 0xFFFF;
/// The largest directory that is read. A million entries take less.
const LARGEST_DIRECTORY: u64 = 64 << 20;
/// The largest pickle that is read. Real ones have some hundred bytes per tensor.
const LARGEST_PICKLE: u64 = 16 << 20;

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset of its local header.
    header: u64,
    bytes: u64,
    is_stored: bool,
}

/// The directory of an archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    /// Entries by name, without the folder that contains them all.
    entries: BTreeMap<String, Entry>,
    bytes: u64,
}

impl Archive {
    /// Reads the directory of a file of `bytes` bytes.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_MODEL` if there is none or it is damaged, and I/O errors.
    pub(super) fn open(path: &Path, file: &mut File, bytes: u64) -> Result<Self> {
        let mut archive = Self { path: path.to_path_buf(), entries: BTreeMap::new(), bytes };
        let tail_at = bytes.saturating_sub(LONGEST_END);
        let tail = archive.part(file, tail_at, bytes - tail_at)?;
        let end = memchr::memmem::rfind(&tail, b"PK\x05\x06").filter(|at| at + 22 <= tail.len());
        let Some(end) = end else {
            return Err(damaged(
                path,
                "it is not a zip archive written by torch.save, or it is truncated",
            ));
        };
        let (mut size, mut start) =
            (u64::from(u32_at(&tail, end + 12)), u64::from(u32_at(&tail, end + 16)));
        if size == 0xFFFF_FFFF || start == 0xFFFF_FFFF || u16_at(&tail, end + 10) == 0xFFFF {
            // Zip64: the locator of the 64-bit record precedes the end record.
            let locator = end.checked_sub(20).filter(|at| tail[*at..].starts_with(b"PK\x06\x07"));
            let Some(locator) = locator else { return Err(archive.broken()) };
            let record = archive.part(file, u64_at(&tail, locator + 8), 56)?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(archive.broken());
            }
            (size, start) = (u64_at(&record, 40), u64_at(&record, 48));
        }
        if size > LARGEST_DIRECTORY {
            return Err(damaged(path, "its directory is impossibly large"));
        }
        let directory = archive.part(file, start, size)?;
        archive.read_directory(&directory)?;
        Ok(archive)
    }

    fn broken(&self) -> Error {
        damaged(&self.path, "the directory of its zip archive is broken")
    }

    /// Reads `bytes` bytes of the file from `start` on.
    fn part(&self, file: &mut File, start: u64, bytes: u64) -> Result<Vec<u8>> {
        if start.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(self.broken());
        }
        let cannot_read = |error| Error::io(IoAction::Read, &self.path, error);
        let mut part = vec![0; bytes as usize];
        file.seek(SeekFrom::Start(start)).map_err(cannot_read)?;
        file.read_exact(&mut part).map_err(cannot_read)?;
        Ok(part)
    }

    fn read_directory(&mut self, mut directory: &[u8]) -> Result<()> {
        while directory.starts_with(b"PK\x01\x02") {
            let entry = directory;
            let field = |at| usize::from(u16_at(entry, at));
            if entry.len() < 46 {
                return Err(self.broken());
            }
            let (name, extra, comment) = (field(28), field(30), field(32));
            let Some(rest) = entry.get(46 + name + extra + comment..) else {
                return Err(self.broken());
            };
            directory = rest;
            let (name, extra) = entry[46..46 + name + extra].split_at(name);
            let name = String::from_utf8_lossy(name);
            let name = name.split_once('/').map_or(&*name, |(_, inner)| inner);
            let (bytes, header) = wide_fields(entry, extra);
            let is_stored = u16_at(entry, 10) == 0;
            self.entries.insert(name.to_owned(), Entry { header, bytes, is_stored });
        }
        Ok(())
    }

    /// Returns the offset and the size of an entry's bytes.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_MODEL` if there is no such entry, or it is compressed.
    pub(super) fn locate(&self, file: &mut File, name: &str) -> Result<(u64, u64)> {
        let Some(entry) = self.entries.get(name) else {
            return Err(damaged(&self.path, format_args!("the archive has no {name}")));
        };
        if !entry.is_stored {
            return Err(damaged(
                &self.path,
                format_args!("{name} is compressed, which torch.save never does"),
            ));
        }
        let header = self.part(file, entry.header, 30)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(self.broken());
        }
        let skipped = 30 + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        match entry.header.checked_add(skipped) {
            Some(start) if start.checked_add(entry.bytes).is_some_and(|end| end <= self.bytes) => {
                Ok((start, entry.bytes))
            }
            _ => Err(self.broken()),
        }
    }

    /// Reads a whole entry, such as the pickle.
    ///
    /// # Errors
    /// As `locate`, and also if it is larger than any real pickle.
    pub(super) fn read(&self, file: &mut File, name: &str) -> Result<Vec<u8>> {
        let (start, bytes) = self.locate(file, name)?;
        if bytes > LARGEST_PICKLE {
            return Err(damaged(&self.path, format_args!("{name} is impossibly large")));
        }
        self.part(file, start, bytes)
    }
}

/// Returns the size and the offset of an entry. For large ones the extra field (zip64) holds them.
fn wide_fields(entry: &[u8], extra: &[u8]) -> (u64, u64) {
    let (packed, size, header) = (u32_at(entry, 20), u32_at(entry, 24), u32_at(entry, 42));
    let (mut bytes, mut at) = (u64::from(size), u64::from(header));
    let mut rest = extra;
    while let [a, b, c, d, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*c, *d])).min(tail.len());
        if [*a, *b] == [1, 0] {
            let mut numbers = tail[..length].chunks_exact(8).map(|chunk| u64_at(chunk, 0));
            if size == u32::MAX {
                bytes = numbers.next().unwrap_or(bytes);
            }
            if packed == u32::MAX {
                numbers.next();
            }
            if header == u32::MAX {
                at = numbers.next().unwrap_or(at);
            }
        }
        rest = &tail[length..];
    }
    (bytes, at)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
