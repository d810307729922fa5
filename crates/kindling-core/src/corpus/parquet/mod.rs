//! Reads one text column of a Parquet file as a stream of JSON Lines, one line for each text that
//! is not null. Blocks, documents and resuming are therefore those of JSON Lines.
//!
//! ```text
//! for each row group:
//!     for each page of the column:      one is in memory at a time, and the dictionary
//!         for each text: {"<column>":"<text, escaped>"}
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `thrift.rs` | the encoding of metadata |
//! | `footer.rs` | the schema, and where the column's pages are |
//! | `page.rs` | page headers and decompression |
//! | `values.rs` | the texts of a page |
//! | `rle.rs`, `delta.rs` | encodings of integers |
//!
//! Source: <https://github.com/apache/parquet-format>

mod delta;
mod footer;
mod page;
mod rle;
#[cfg(test)]
mod tests;
mod thrift;
mod values;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::footer::{Chunk, Column};
use self::page::{DataHeader, LARGEST, PageHeader, PageKind};
use self::values::{DataPage, Dictionary};
use crate::Error;

/// The first and the last four bytes of a file.
const MAGIC: &[u8; 4] = b"PAR1";
/// Bytes at the end of a file: the length of the footer, and `MAGIC`.
const TAIL: u64 = 8;
/// Largest footer that is read, in bytes.
const LARGEST_FOOTER: u64 = 64 << 20;
/// Bytes read for a page header at first, and at most: it may hold long statistics.
const HEADER: usize = 1 << 12;
const LARGEST_HEADER: usize = 16 << 20;
/// Bytes of JSON lines made at a time.
const LINES: usize = 1 << 16;

/// A stream of the JSON lines of one file.
pub struct ParquetReader {
    file: File,
    path: PathBuf,
    length: u64,
    /// What each line starts with: `{"<column>":"`.
    prefix: Vec<u8>,
    column: Column,
    chunks: std::vec::IntoIter<Chunk>,
    chunk: Chunk,
    dictionary: Dictionary,
    page: Option<DataPage>,
    /// JSON lines, and the number of their bytes that have been read.
    lines: Vec<u8>,
    at: usize,
    disk_bytes: Arc<AtomicU64>,
}

/// Why reading ended.
enum Failure {
    Io(io::Error),
    /// What is wrong with the file.
    Invalid(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Invalid(what)
    }
}

impl Failure {
    fn of(what: &str) -> Self {
        Self::Invalid(what.to_owned())
    }

    fn into_io(self, path: &std::path::Path) -> io::Error {
        match self {
            Self::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => error,
            Self::Io(_) => Self::of("it ends early").into_io(path),
            Self::Invalid(what) => io::Error::other(Error::InvalidCorpus(format!(
                "{} cannot be read as Parquet: {what}",
                path.display()
            ))),
        }
    }
}

impl ParquetReader {
    /// Opens a file. The reader adds the bytes that it reads from disk to `disk_bytes`.
    ///
    /// # Errors
    /// Returns an I/O error, or one that wraps `ERR_INVALID_CORPUS`.
    pub fn open(
        path: PathBuf,
        column: &str,
        disk_bytes: Arc<AtomicU64>,
    ) -> Result<Self, io::Error> {
        let mut file = File::open(&path)?;
        let opened = read_footer(&mut file).and_then(|(length, footer)| {
            let column = footer::find_column(&footer, column)?;
            let chunks = footer::chunks(&footer, column)?;
            disk_bytes.fetch_add(footer.len() as u64 + TAIL, Ordering::Relaxed);
            Ok((length, column, chunks))
        });
        let (length, found, chunks) = opened.map_err(|failure| failure.into_io(&path))?;
        let name = serde_json::to_string(column).map_err(io::Error::other)?;
        Ok(Self {
            file,
            path,
            length,
            prefix: format!("{{{name}:\"").into_bytes(),
            column: found,
            chunks: chunks.into_iter(),
            chunk: Chunk { start: 0, end: 0, codec: 0, values: 0 },
            dictionary: Dictionary::default(),
            page: None,
            lines: Vec::new(),
            at: 0,
            disk_bytes,
        })
    }

    /// Makes the next lines. Makes none at the end of the file.
    fn fill(&mut self) -> Result<(), Failure> {
        self.lines.clear();
        self.at = 0;
        while self.lines.len() < LINES {
            let Some(page) = &mut self.page else {
                if !self.next_page()? {
                    return Ok(());
                }
                continue;
            };
            let Some(text) = page.next(&self.dictionary)? else {
                self.page = None;
                continue;
            };
            self.lines.extend_from_slice(&self.prefix);
            push_escaped(&mut self.lines, text);
            self.lines.extend_from_slice(b"\"}\n");
        }
        Ok(())
    }

    /// Reads the next page. Returns false at the end of the file.
    fn next_page(&mut self) -> Result<bool, Failure> {
        while self.chunk.values == 0 {
            let Some(chunk) = self.chunks.next() else { return Ok(false) };
            if chunk.end > self.length {
                return Err(Failure::of("it ends early"));
            }
            (self.chunk, self.dictionary) = (chunk, Dictionary::default());
        }
        let header = self.next_header()?;
        let start = self.chunk.start + header.length as u64;
        let end = start + header.compressed as u64;
        if end > self.chunk.end {
            return Err(Failure::of("a page is longer than its row group"));
        }
        let mut bytes = vec![0; header.compressed];
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut bytes)?;
        self.disk_bytes.fetch_add(end - self.chunk.start, Ordering::Relaxed);
        self.chunk.start = end;
        match header.kind {
            PageKind::Dictionary { values, encoding } => {
                let bytes = self.decompressed(bytes, header.uncompressed)?;
                self.dictionary = Dictionary::new(bytes, values, encoding)?;
            }
            PageKind::Data(data) => {
                let left = self.chunk.values.checked_sub(u64::from(data.values));
                self.chunk.values =
                    left.ok_or_else(|| Failure::of("a page has too many values"))?;
                let bytes = self.data(bytes, header.uncompressed, data)?;
                self.page = Some(DataPage::new(bytes, data, self.column.max_definition)?);
            }
            PageKind::Other => {}
        }
        Ok(true)
    }

    /// Reads the header at the start of what is left of the chunk.
    fn next_header(&mut self) -> Result<PageHeader, Failure> {
        let mut wanted = HEADER;
        loop {
            let left = usize::try_from(self.chunk.end - self.chunk.start).unwrap_or(usize::MAX);
            let mut bytes = vec![0; wanted.min(left)];
            self.file.seek(SeekFrom::Start(self.chunk.start))?;
            self.file.read_exact(&mut bytes)?;
            if let Some(header) = page::read_header(&bytes)? {
                return Ok(header);
            }
            if wanted >= left.min(LARGEST_HEADER) {
                return Err(Failure::of("a row group ends early"));
            }
            wanted *= 8;
        }
    }

    fn decompressed(&self, bytes: Vec<u8>, length: usize) -> Result<Vec<u8>, Failure> {
        if self.chunk.codec == 0 && bytes.len() == length {
            return Ok(bytes);
        }
        let mut out = Vec::new();
        page::decompress(self.chunk.codec, &bytes, length, &mut out)?;
        Ok(out)
    }

    /// Returns the decompressed bytes of a data page, with its levels in front.
    fn data(&self, bytes: Vec<u8>, length: usize, data: DataHeader) -> Result<Vec<u8>, Failure> {
        let Some((repetition, definition, is_compressed)) = data.v2 else {
            return self.decompressed(bytes, length);
        };
        let levels = repetition + definition;
        if levels > bytes.len() || levels > length || length > LARGEST {
            return Err(Failure::of("a page is shorter than its levels"));
        }
        // A page of nulls alone has nothing to decompress.
        if !is_compressed || bytes.len() == levels {
            return Ok(bytes);
        }
        let mut out = bytes[..levels].to_vec();
        page::decompress(self.chunk.codec, &bytes[levels..], length - levels, &mut out)?;
        Ok(out)
    }
}

impl Read for ParquetReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.lines.len() {
            self.fill().map_err(|failure| failure.into_io(&self.path))?;
        }
        let length = buffer.len().min(self.lines.len() - self.at);
        buffer[..length].copy_from_slice(&self.lines[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Returns the length of a file, and its footer.
fn read_footer(file: &mut File) -> Result<(u64, Vec<u8>), Failure> {
    let length = file.metadata()?.len();
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    if magic != *MAGIC || length < TAIL + 4 {
        let encrypted = magic == *b"PARE";
        return Err(Failure::of(if encrypted {
            "it is encrypted"
        } else {
            "it is not in Parquet format"
        }));
    }
    let mut tail = [0; TAIL as usize];
    file.seek(SeekFrom::Start(length - TAIL))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, end @ ..] = tail;
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    if end != *MAGIC || size > length - TAIL - 4 {
        return Err(Failure::of(
            "it is incomplete, since its end is missing; download or write it again",
        ));
    }
    if size > LARGEST_FOOTER {
        return Err(Failure::Invalid(format!(
            "its footer has {} MiB, which is above the limit of {} MiB",
            size >> 20,
            LARGEST_FOOTER >> 20
        )));
    }
    let mut footer = vec![0; size as usize];
    file.seek(SeekFrom::Start(length - TAIL - size))?;
    file.read_exact(&mut footer)?;
    Ok((length, footer))
}

/// Appends `text`, escaped for a JSON string. Invalid UTF-8 stays as it is.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    let needs_escape = |&byte: &u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
    while let Some(at) = rest.iter().position(needs_escape) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            byte => out.extend(format!("\\u{byte:04x}").bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
