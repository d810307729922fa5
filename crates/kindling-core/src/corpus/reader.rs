//! The bytes of one input, decompressed: gzip of any number of members, zstd of any number of frames, told by their first
//! bytes and not by their names.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::inputs::{Input, cannot_read};
use crate::{Error, Result};

/// Compressed bytes read at a time.
const BUFFER: usize = 1 << 17;
/// Bytes of the longest mark a compressed file begins with.
const MARK: usize = 4;
const GZIP: [u8; 3] = [0x1F, 0x8B, 8];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// A stream of text bytes.
pub(crate) struct Reader<'a> {
    stream: Box<dyn Read + Send + 'a>,
    compressed: Option<&'static str>,
    /// Neither a pipe nor a device.
    regular: bool,
    /// Bytes taken from the disk so far.
    taken: Arc<AtomicU64>,
}

impl<'a> Reader<'a> {
    /// Opens `input` at byte `offset` of its text. `waiting` is called while standard input has nothing to read; an error
    /// of it ends the reading.
    pub fn open(input: &Input, offset: u64, waiting: Waiting<'a>) -> Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let cannot_read = |error| cannot_read(&input.path, error);
        let mut regular = false;
        let mut raw: Box<dyn Read + Send + 'a> = if input.is_stdin() {
            Box::new(Counted { inner: Stdin { waiting }, taken: Arc::clone(&taken) })
        } else {
            let file = File::open(&input.path).map_err(cannot_read)?;
            regular = file.metadata().is_ok_and(|status| status.is_file());
            Box::new(Counted { inner: file, taken: Arc::clone(&taken) })
        };
        let mut mark = Vec::with_capacity(MARK);
        (&mut raw).take(MARK as u64).read_to_end(&mut mark).map_err(cannot_read)?;
        let compressed = compression(&mark);
        check_name(input, compressed)?;
        if compressed.is_none() && offset >= MARK as u64 && !input.is_stdin() {
            let mut file = File::open(&input.path).map_err(cannot_read)?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(cannot_read)?;
            taken.store(offset, Ordering::Relaxed);
            let stream = Box::new(Counted { inner: file, taken: Arc::clone(&taken) });
            return Ok(Self { stream, compressed, regular, taken });
        }
        let raw = io::Cursor::new(mark).chain(raw);
        let stream: Box<dyn Read + Send + 'a> = match compressed {
            Some("gzip") => Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                BUFFER,
                Box::new(raw) as Box<dyn Read + Send + 'a>,
            ))),
            Some(_) => Box::new(ZstdReader::new(Box::new(raw))),
            None => Box::new(raw),
        };
        let mut reader = Self { stream, compressed, regular, taken };
        reader.skip(offset, input)?;
        Ok(reader)
    }

    /// Whether its bytes are those of a file that can be read again.
    pub fn is_plain_file(&self) -> bool {
        self.regular && self.compressed.is_none()
    }

    /// Bytes taken from the disk so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Appends up to `length` bytes to `buffer`; fewer only at the end.
    pub fn read(&mut self, buffer: &mut Vec<u8>, length: usize, input: &Input) -> Result<usize> {
        self.read_behind(buffer, buffer.len(), length, input)
    }

    /// As `read`, behind the first `start` bytes of `buffer`. What else it held is overwritten, which saves clearing it.
    pub fn read_behind(
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
            (Ok(ended), _) => ended,
            (Err(error), Some(kind)) if error.raw_os_error().is_none() => {
                Error::InvalidCorpus(format!(
                    "{} is damaged: its {kind} data cannot be decompressed ({error}); fetch or make the file again",
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
                let message =
                    format!("{} is shorter than when its encoding began", input.path.display());
                return Err(Error::InvalidCorpus(message));
            }
            bytes -= length as u64;
        }
        Ok(())
    }
}

fn compression(mark: &[u8]) -> Option<&'static str> {
    let skippable = mark.len() == 4 && mark[0] & 0xF0 == 0x50 && mark[1..] == [0x2A, 0x4D, 0x18];
    if mark.starts_with(&GZIP) {
        Some("gzip")
    } else if mark == ZSTD || skippable {
        Some("zstd")
    } else {
        None
    }
}

/// A name that promises compression must keep its word: a file cut to nothing is not an empty text.
fn check_name(input: &Input, compressed: Option<&str>) -> Result<()> {
    let promised = match input.path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return Ok(()),
    };
    if compressed.is_some() {
        return Ok(());
    }
    let path = input.path.display();
    Err(Error::InvalidCorpus(format!(
        "{path} holds no {promised} data; rename it or make it again"
    )))
}

/// Called while there is nothing to read.
pub(crate) type Waiting<'a> = Box<dyn FnMut() -> Result<()> + Send + 'a>;

struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Standard input, which may be a terminal or a slow pipe: the wish to stop must not wait for it.
struct Stdin<'a> {
    waiting: Waiting<'a>,
}

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        loop {
            let mut wanted = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd, for the length of the call.
            match unsafe { libc::poll(&raw mut wanted, 1, 100) } {
                0 => (self.waiting)().map_err(io::Error::other)?,
                -1 => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
                _ => match io::stdin().lock().read(buffer) {
                    // Someone made the pipe non-blocking, and another reader was faster.
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

/// Frames of zstd one after the other, each held against its checksum if it has one.
struct ZstdReader<'a> {
    source: BufReader<Box<dyn Read + Send + 'a>>,
    decoder: FrameDecoder,
    /// A frame has begun and not ended.
    within: bool,
}

impl<'a> ZstdReader<'a> {
    fn new(source: Box<dyn Read + Send + 'a>) -> Self {
        let source = BufReader::with_capacity(BUFFER, source);
        Self { source, decoder: FrameDecoder::new(), within: false }
    }

    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
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
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            self.within = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            let length = self.decoder.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.within = false;
            let said = self.decoder.get_checksum_from_data();
            if said.is_some() && said != self.decoder.get_calculated_checksum() {
                return Err(io::Error::other("its checksum differs"));
            }
        }
    }
}
