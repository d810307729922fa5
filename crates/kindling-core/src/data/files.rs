//! Which files a token store consists of: a folder of chunks, one .npy, or one raw .bin of uint16.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::element::Element;
use super::metadata::Metadata;
use super::npy;
use crate::{Error, Result};

/// One file's share of the store.
#[derive(Debug)]
pub struct ChunkFile {
    /// The file.
    pub path: PathBuf,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Tokens in it.
    pub tokens: u64,
}

/// The files of a store; every chunk but the last holds `metadata.chunk_size` tokens.
#[derive(Debug)]
pub struct Files {
    /// In order.
    pub chunks: Vec<ChunkFile>,
    /// Kind of the elements.
    pub element: Element,
    /// Byte of each file at which its tokens begin.
    pub offset: u64,
    /// From `store.json`, or from the sizes.
    pub metadata: Metadata,
}

/// Name of chunk file `number`.
pub fn chunk_name(number: usize) -> String {
    format!("encoded_tokens_chunk_{number}.dat")
}

/// The number in a chunk file's name.
pub fn chunk_number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("encoded_tokens_chunk_")?.strip_suffix(".dat")?;
    let number = digits.parse().ok()?;
    (chunk_name(number) == name).then_some(number)
}

/// Finds the files of the store at `path`. Their contents are not read.
///
/// # Errors
/// `ERR_NOT_FOUND`, `ERR_INVALID_STORE` naming the damage, the system's errors.
pub fn find(path: &Path) -> Result<Files> {
    let status = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotFound { what: "token store", path: path.to_path_buf() }
        }
        _ => Error::io("cannot read", path, error),
    })?;
    if status.is_dir() {
        return folder(path, Metadata::read(path)?);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => npy_file(path, status.len()),
        Some("bin") => single(path, status.len(), Element::Uint16, 0, None),
        _ => Err(invalid(path, "is neither a folder of chunks nor a .npy or .bin file")),
    }
}

fn invalid(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::InvalidStore(format!("{} {what}", path.display()))
}

fn npy_file(path: &Path, file_bytes: u64) -> Result<Files> {
    let mut file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
    let header = npy::read_header(&mut file, path)?;
    single(path, file_bytes, header.element, header.offset, Some(header.length))
}

/// One file of `length` tokens, or as many as it has room for.
fn single(
    path: &Path,
    file_bytes: u64,
    element: Element,
    offset: u64,
    length: Option<u64>,
) -> Result<Files> {
    let size = element.size() as u64;
    let room = file_bytes.saturating_sub(offset);
    if length.is_none() && !room.is_multiple_of(size) {
        return Err(invalid(path, format_args!("has {file_bytes} bytes, no multiple of {size}")));
    }
    let length = length.unwrap_or(room / size);
    if length.checked_mul(size) != Some(room) {
        let what = format_args!(
            "has {room} bytes of tokens where its header says {length} of {size} bytes"
        );
        return Err(invalid(path, what));
    }
    let metadata = Metadata::of_sizes(length, length, element.name());
    let chunks = vec![ChunkFile { path: path.to_path_buf(), file_bytes, tokens: length }];
    Ok(Files { chunks: if length == 0 { Vec::new() } else { chunks }, element, offset, metadata })
}

/// The chunk files of `path` as `metadata` says, or as their sizes tell.
pub(super) fn folder(path: &Path, metadata: Option<Metadata>) -> Result<Files> {
    let element = metadata.as_ref().and_then(Metadata::element).unwrap_or(Element::Int32);
    let chunks = chunk_files(path, element.size() as u64)?;
    let Some(first) = chunks.first() else {
        let hint = if path.join("train_chunks").is_dir() {
            "; open its train_chunks"
        } else {
            "; make one with kindling encode"
        };
        return Err(invalid(path, format_args!("holds no chunks of tokens{hint}")));
    };
    let chunk_size = metadata.as_ref().map_or(first.tokens, |metadata| metadata.chunk_size);
    for (number, chunk) in chunks.iter().enumerate() {
        let last = number + 1 == chunks.len();
        if chunk.tokens == 0 || chunk.tokens > chunk_size || (!last && chunk.tokens < chunk_size) {
            let what = format_args!("holds {} tokens where a chunk has {chunk_size}", chunk.tokens);
            return Err(invalid(&chunk.path, what));
        }
    }
    let length = chunks.iter().map(|chunk| chunk.tokens).sum();
    let metadata = metadata.unwrap_or_else(|| Metadata::of_sizes(length, chunk_size, "int32"));
    if metadata.length != length {
        let said = metadata.length;
        return Err(invalid(
            path,
            format_args!("holds {length} tokens where its store.json says {said}"),
        ));
    }
    if !metadata.checksums.is_empty() && metadata.checksums.len() != chunks.len() {
        return Err(invalid(path, "has a store.json with another number of checksums than chunks"));
    }
    Ok(Files { chunks, element, offset: 0, metadata })
}

/// The chunk files of `folder` in order; a token has `size` bytes.
fn chunk_files(folder: &Path, size: u64) -> Result<Vec<ChunkFile>> {
    let cannot_read = |error| Error::io("cannot read", folder, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_read)? {
        let entry = entry.map_err(cannot_read)?;
        let Some(number) = entry.file_name().to_str().and_then(chunk_number) else { continue };
        // Follows links: a store may be put together of them.
        let path = entry.path();
        let status =
            std::fs::metadata(&path).map_err(|error| Error::io("cannot read", &path, error))?;
        let file_bytes = status.len();
        if !file_bytes.is_multiple_of(size) {
            return Err(invalid(
                &path,
                format_args!("has {file_bytes} bytes, no multiple of {size}"),
            ));
        }
        found.push((number, ChunkFile { path, file_bytes, tokens: file_bytes / size }));
    }
    found.sort_unstable_by_key(|(number, _)| *number);
    for (expected, (number, _)) in found.iter().enumerate() {
        if *number != expected {
            return Err(invalid(folder, format_args!("lacks {}", chunk_name(expected))));
        }
    }
    Ok(found.into_iter().map(|(_, chunk)| chunk).collect())
}
