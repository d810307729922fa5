//! Reads the bytes of one input, decompressed: gzip of any number of members, zstd of any number of
//! frames. The first bytes of a file decide its compression, not its name.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::inputs::{Format, Input, cannot_read};
use super::parquet::ParquetReader;
use crate::{Error, Result};

/// Compressed bytes read at a time.
const BUFFER: usize = 1 << 17;
/// Length of the longest magic number in bytes.
const MAGIC: usize = 4;
const GZIP: [u8; 3] = [0x1F, 0x8B, 8];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// A stream of decompressed bytes.
pub(crate) struct Reader<'a> {
    stream: Box<dyn Read + Send + 'a>,
    compressed: Option<&'static str>,
    /// Bytes read from disk so far.
    disk_bytes: Arc<AtomicU64>,
}

impl<'a> Reader<'a> {
    /// Opens `input` at byte `offset` of its decompressed content. `waiting` is called again and
    /// again while standard input has nothing to read; an error that it returns ends the reading.
    pub fn open(input: &Input, offset: u64, waiting: Waiting<'a>) -> Result<Self> {
        let disk_bytes = Arc::new(AtomicU64::new(0));
        let cannot_read = |error| cannot_read(&input.path, error);
        if input.format == Format::Parquet {
            let count = Arc::clone(&disk_bytes);
            let lines = ParquetReader::open(input.path.clone(), &input.text_field, count);
            let lines = lines.map_err(|error| error.downcast().unwrap_or_else(cannot_read))?;
            let mut reader = Self { stream: Box::new(lines), compressed: None, disk_bytes };
            reader.skip(offset, input)?;
            return Ok(reader);
        }
        let mut raw: Box<dyn Read + Send + 'a> = if input.is_stdin() {
            Box::new(Counted { inner: Stdin { waiting }, count: Arc::clone(&disk_bytes) })
        } else {
            let file = File::open(&input.path).map_err(cannot_read)?;
            Box::new(Counted { inner: file, count: Arc::clone(&disk_bytes) })
        };
        let mut magic = Vec::with_capacity(MAGIC);
        (&mut raw).take(MAGIC as u64).read_to_end(&mut magic).map_err(cannot_read)?;
        let compressed = compression(&magic);
        check_name(input, compressed)?;
        if compressed.is_none() && offset >= MAGIC as u64 && !input.is_stdin() {
            let mut file = File::open(&input.path).map_err(cannot_read)?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(cannot_read)?;
            disk_bytes.store(offset, Ordering::Relaxed);
            let stream = Box::new(Counted { inner: file, count: Arc::clone(&disk_bytes) });
            return Ok(Self { stream, compressed, disk_bytes });
        }
        let raw = io::Cursor::new(magic).chain(raw);
        let stream: Box<dyn Read + Send + 'a> = match compressed {
            Some("gzip") => Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                BUFFER,
                Box::new(raw) as Box<dyn Read + Send + 'a>,
            ))),
            Some(_) => Box::new(ZstdReader::new(Box::new(raw))),
            None => Box::new(raw),
        };
        let mut reader = Self { stream, compressed, disk_bytes };
        reader.skip(offset, input)?;
        Ok(reader)
    }

    /// Returns the number of bytes read from disk so far.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Appends up to `length` bytes to `buffer` and returns how many: fewer only at the end of the
    /// input.
    pub fn read(&mut self, buffer: &mut Vec<u8>, length: usize, input: &Input) -> Result<usize> {
        self.read_at(buffer, buffer.len(), length, input)
    }

    /// Reads up to `length` bytes into `buffer` from index `start` on, truncates it after them, and
    /// returns how many. Overwriting the old contents saves zeroing the buffer first.
    pub fn read_at(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        length: usize,
        input: &Input,
    ) -> Result<usize> {
        let end = start + length;
        if buffer.len() < end {
            buffer.resize(end, 0);
        }
        let mut filled = start;
        while filled < end {
            match self.stream.read(&mut buffer[filled..end]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error, input)),
            }
        }
        buffer.truncate(filled);
        Ok(filled - start)
    }

    fn error(&self, error: io::Error, input: &Input) -> Error {
        match (error.downcast::<Error>(), self.compressed) {
            (Ok(from_waiting), _) => from_waiting,
            (Err(error), Some(kind)) if error.raw_os_error().is_none() => {
                Error::InvalidCorpus(format!(
                    "{} is damaged: its {kind} data cannot be decompressed ({error}); \
                     download or create the file again",
                    input.path.display()
                ))
            }
            (Err(error), _) => cannot_read(&input.path, error),
        }
    }

    fn skip(&mut self, mut bytes: u64, input: &Input) -> Result<()> {
        let mut buffer = Vec::new();
        while bytes > 0 {
            buffer.clear();
            let length = self.read(&mut buffer, bytes.min(BUFFER as u64) as usize, input)?;
            if length == 0 {
                let message = format!(
                    "{} is shorter than it was when encoding began; encode it again",
                    input.path.display()
                );
                return Err(Error::InvalidCorpus(message));
            }
            bytes -= length as u64;
        }
        Ok(())
    }
}

fn compression(magic: &[u8]) -> Option<&'static str> {
    let skippable = magic.len() == 4 && magic[0] & 0xF0 == 0x50 && magic[1..] == [0x2A, 0x4D, 0x18];
    if magic.starts_with(&GZIP) {
        Some("gzip")
    } else if magic == ZSTD || skippable {
        Some("zstd")
    } else {
        None
    }
}

/// Rejects a file named `.gz` or `.zst` that holds other data. Otherwise an empty file, left by a
/// failed download, would pass for an empty text.
fn check_name(input: &Input, compressed: Option<&str>) -> Result<()> {
    let expected = match input.path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return Ok(()),
    };
    if compressed.is_some() {
        return Ok(());
    }
    let path = input.path.display();
    Err(Error::InvalidCorpus(format!(
        "{path} does not hold {expected} data; rename it or create it again"
    )))
}

/// A callback for the time during which there is nothing to read.
pub(crate) type Waiting<'a> = Box<dyn FnMut() -> Result<()> + Send + 'a>;

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Standard input, polled every 100 ms: it may be a terminal or a slow pipe, and cancelling must
/// not wait for it.
struct Stdin<'a> {
    waiting: Waiting<'a>,
}

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        loop {
            let mut stdin = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
            // SAFETY: the pointer is to one valid pollfd that outlives the call.
            match unsafe { libc::poll(&raw mut stdin, 1, 100) } {
                0 => (self.waiting)().map_err(io::Error::other)?,
                -1 => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
                _ => match io::stdin().lock().read(buffer) {
                    // The pipe is non-blocking, and another process was faster to read the bytes.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                },
            }
        }
        #[cfg(not(unix))]
        {
            (self.waiting)().map_err(io::Error::other)?;
            io::stdin().lock().read(buffer)
        }
    }
}

/// Decodes concatenated zstd frames, and verifies the checksum of each that has one.
struct ZstdReader<'a> {
    source: BufReader<Box<dyn Read + Send + 'a>>,
    decoder: FrameDecoder,
    /// Whether a frame has begun and not ended.
    in_frame: bool,
}

impl<'a> ZstdReader<'a> {
    fn new(source: Box<dyn Read + Send + 'a>) -> Self {
        let source = BufReader::with_capacity(BUFFER, source);
        Self { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame, past any skippable ones. Returns false at the end of the file.
    fn begin_frame(&mut self) -> io::Result<bool> {
        loop {
            if io::BufRead::fill_buf(&mut self.source)?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped =
                        io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }
}

impl Read for ZstdReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.begin_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            let length = self.decoder.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.in_frame = false;
            let expected = self.decoder.get_checksum_from_data();
            if expected.is_some() && expected != self.decoder.get_calculated_checksum() {
                return Err(io::Error::other("checksum mismatch"));
            }
        }
    }
}
