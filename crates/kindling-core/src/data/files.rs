//! The files of a token store: a folder of chunks, one .npy, or one raw .bin of uint16.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::element::Element;
use super::identity::Identity;
use super::metadata::Metadata as StoreMetadata;
use super::npy;
use crate::error::IoAction;
use crate::whole_file::open_regular;
use crate::{Error, Result};

/// What to do about a damaged folder of chunks.
pub(super) const RESTORE: &str = "copy the store or encode the text again";

/// A file with part of the tokens.
#[derive(Debug)]
pub struct ChunkFile {
    pub path: PathBuf,
    /// The size of the whole file in bytes.
    pub file_bytes: u64,
    pub tokens: u64,
    pub identity: Identity,
}

/// The files of a store. Every chunk but the last holds `metadata.chunk_size` tokens.
#[derive(Debug)]
pub struct StoreFiles {
    pub chunks: Vec<ChunkFile>,
    pub element: Element,
    /// Offset in bytes of the tokens in each file.
    pub offset: u64,
    /// From `store.json`, or from the sizes of the files.
    pub metadata: StoreMetadata,
}

/// Returns the name of chunk file `number`.
pub fn chunk_name(number: usize) -> String {
    format!("encoded_tokens_chunk_{number}.dat")
}

/// Returns the number in the name of a chunk file.
pub fn chunk_number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("encoded_tokens_chunk_")?.strip_suffix(".dat")?;
    let number = digits.parse().ok()?;
    (chunk_name(number) == name).then_some(number)
}

/// Finds the files of the store at `path` by their names and sizes, without reading tokens.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, `ERR_INVALID_STORE` if files are missing or sizes disagree, and I/O
/// errors.
pub fn find(path: &Path) -> Result<StoreFiles> {
    let status = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotFound { what: "token store", path: path.to_path_buf() }
        }
        _ => Error::io(IoAction::Read, path, error),
    })?;
    if status.is_dir() {
        return folder(path, StoreMetadata::read(path)?);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => npy_file(path),
        Some("bin") => single(path, &status, Element::Uint16, 0, None),
        _ => Err(invalid(
            path,
            "is neither a folder of chunks nor a .npy or .bin file; choose one of these",
        )),
    }
}

fn invalid(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::InvalidStore(format!("{} {what}", path.display()))
}

fn npy_file(path: &Path) -> Result<StoreFiles> {
    let (mut file, _) = open_regular(path, Error::InvalidStore)?;
    let header = npy::read_header(&mut file, path)?;
    let status = file.metadata().map_err(|error| Error::io(IoAction::Read, path, error))?;
    single(path, &status, header.element, header.offset, Some(header.length))
}

/// Returns the files of a store in a single file, with `length` tokens, or as many as the file
/// holds.
fn single(
    path: &Path,
    status: &Metadata,
    element: Element,
    offset: u64,
    length: Option<u64>,
) -> Result<StoreFiles> {
    if !status.is_file() {
        return Err(invalid(path, "is not a regular file"));
    }
    let (size, file_bytes) = (element.size() as u64, status.len());
    let room = file_bytes.saturating_sub(offset);
    if length.is_none() && !room.is_multiple_of(size) {
        return Err(invalid(
            path,
            format_args!("has {file_bytes} bytes, not a multiple of {size}; copy it again"),
        ));
    }
    let length = length.unwrap_or(room / size);
    if length.checked_mul(size) != Some(room) {
        let what = format_args!(
            "has {room} bytes of tokens, but its header says {length} tokens of {size} bytes; \
             copy it again"
        );
        return Err(invalid(path, what));
    }
    let metadata = StoreMetadata::of_sizes(length, length, element.name());
    let (path, identity) = (path.to_path_buf(), Identity::of(status));
    let chunks = vec![ChunkFile { path, file_bytes, tokens: length, identity }];
    Ok(StoreFiles {
        chunks: if length == 0 { Vec::new() } else { chunks },
        element,
        offset,
        metadata,
    })
}

/// Finds the chunk files in `path`, and checks them against `metadata` if given, otherwise against
/// each other.
pub(super) fn folder(path: &Path, metadata: Option<StoreMetadata>) -> Result<StoreFiles> {
    let element = metadata.as_ref().and_then(StoreMetadata::element).unwrap_or(Element::Int32);
    let chunks = chunk_files(path, element.size() as u64)?;
    let Some(first) = chunks.first() else {
        let hint = if path.join("train_chunks").is_dir() {
            "; open its train_chunks"
        } else {
            "; create a store with kindling encode"
        };
        return Err(invalid(path, format_args!("holds no chunks of tokens{hint}")));
    };
    let chunk_size = metadata.as_ref().map_or(first.tokens, |metadata| metadata.chunk_size);
    for (number, chunk) in chunks.iter().enumerate() {
        let last = number + 1 == chunks.len();
        if chunk.tokens == 0 || chunk.tokens > chunk_size || (!last && chunk.tokens < chunk_size) {
            let what = format_args!(
                "holds {} tokens where a chunk has {chunk_size}; {RESTORE}",
                chunk.tokens
            );
            return Err(invalid(&chunk.path, what));
        }
    }
    let length = chunks.iter().map(|chunk| chunk.tokens).sum();
    let metadata = metadata.unwrap_or_else(|| StoreMetadata::of_sizes(length, chunk_size, "int32"));
    if metadata.length != length {
        let expected = metadata.length;
        return Err(invalid(
            path,
            format_args!("holds {length} tokens where its store.json says {expected}; {RESTORE}"),
        ));
    }
    if !metadata.checksums.is_empty() && metadata.checksums.len() != chunks.len() {
        return Err(invalid(
            path,
            format_args!(
                "has {} chunks but its store.json has {} checksums; {RESTORE}",
                chunks.len(),
                metadata.checksums.len()
            ),
        ));
    }
    Ok(StoreFiles { chunks, element, offset: 0, metadata })
}

/// Returns the chunk files in `folder`, in order. A token has `size` bytes.
fn chunk_files(folder: &Path, size: u64) -> Result<Vec<ChunkFile>> {
    let cannot_read = |error| Error::io(IoAction::Read, folder, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_read)? {
        let entry = entry.map_err(cannot_read)?;
        let Some(number) = entry.file_name().to_str().and_then(chunk_number) else { continue };
        // Follows links: a store may consist of links to files elsewhere.
        let path = entry.path();
        let status =
            std::fs::metadata(&path).map_err(|error| Error::io(IoAction::Read, &path, error))?;
        if !status.is_file() {
            return Err(invalid(&path, "is not a regular file"));
        }
        let file_bytes = status.len();
        if !file_bytes.is_multiple_of(size) {
            return Err(invalid(
                &path,
                format_args!("has {file_bytes} bytes, not a multiple of {size}; {RESTORE}"),
            ));
        }
        let (tokens, identity) = (file_bytes / size, Identity::of(&status));
        found.push((number, ChunkFile { path, file_bytes, tokens, identity }));
    }
    found.sort_unstable_by_key(|(number, _)| *number);
    for (expected, (number, _)) in found.iter().enumerate() {
        if *number != expected {
            return Err(invalid(folder, format_args!("lacks {}; {RESTORE}", chunk_name(expected))));
        }
    }
    Ok(found.into_iter().map(|(_, chunk)| chunk).collect())
}
