//! Text in which no cut was found. It stays in a file and is mapped, so that memory does not depend
//! on its length: in the input itself if that is uncompressed and valid UTF-8, otherwise decoded in
//! a temporary file without a name.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::inputs::Input;
use super::reader::Reader;
use super::utf8::LossyDecoder;
use crate::error::IoAction;
use crate::{Error, Result};

/// The name of a temporary file while it has one.
const SPILL: &str = "text";
/// Bytes read at a time.
const READ_SIZE: usize = 1 << 18;

/// A text in a mapped file.
#[derive(Debug)]
pub(crate) struct LongText {
    map: Mmap,
    /// The folder in which more temporary files can be created.
    pub folder: PathBuf,
    /// Bytes that were replaced by U+FFFD.
    pub replaced: u64,
}

impl LongText {
    /// Returns the text, if the file has not changed since it was read.
    pub fn text(&self, input: &Input) -> Result<&str> {
        simdutf8::basic::from_utf8(&self.map).map_err(|_| changed(input))
    }

    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }
}

fn changed(input: &Input) -> Error {
    Error::InvalidCorpus(format!(
        "{} changed while it was read; run the command again",
        input.path.display()
    ))
}

/// Takes the bytes of one long text, in order.
pub(crate) struct LongTextWriter<'a> {
    input: &'a Input,
    folder: &'a Path,
    /// The byte of the input at which the text begins.
    start: u64,
    taken: u64,
    decoder: LossyDecoder,
    decoded: String,
    /// The temporary file; `None` if the input itself can be mapped.
    spill: Option<File>,
}

impl<'a> LongTextWriter<'a> {
    /// Begins the text at byte `start` of the input; it is mapped there if `reader` allows it.
    pub fn new(
        input: &'a Input,
        reader: &Reader<'_>,
        start: u64,
        folder: &'a Path,
    ) -> Result<Self> {
        let spill = if reader.is_plain_file() { None } else { Some(nameless(folder)?) };
        Ok(Self::with_spill(input, folder, start, spill))
    }

    /// Begins a text whose bytes are not those of the input.
    pub fn into_file(input: &'a Input, folder: &'a Path) -> Result<Self> {
        Ok(Self::with_spill(input, folder, 0, Some(nameless(folder)?)))
    }

    fn with_spill(input: &'a Input, folder: &'a Path, start: u64, spill: Option<File>) -> Self {
        let (decoder, decoded) = (LossyDecoder::default(), String::new());
        Self { input, folder, start, taken: 0, decoder, decoded, spill }
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.taken += bytes.len() as u64;
        self.decoder.push(bytes, &mut self.decoded);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        if let Some(file) = &mut self.spill {
            let written = file.write_all(self.decoded.as_bytes());
            written.map_err(|error| Error::io(IoAction::Write, self.folder, error))?;
        }
        self.decoded.clear();
        Ok(())
    }

    /// Ends the text and maps it.
    pub fn finish(mut self) -> Result<LongText> {
        self.decoder.finish(&mut self.decoded);
        self.write()?;
        let replaced = self.decoder.replaced_bytes();
        let (file, start, length) = match self.spill.take() {
            Some(file) => {
                let cannot_read = |error| Error::io(IoAction::Read, self.folder, error);
                let length = file.metadata().map_err(cannot_read)?.len();
                (file, 0, length)
            }
            None if replaced > 0 => return self.decode_into_file(),
            None => {
                let cannot_read = |error| Error::io(IoAction::Read, &self.input.path, error);
                let file = File::open(&self.input.path).map_err(cannot_read)?;
                if file.metadata().map_err(cannot_read)?.len() < self.start + self.taken {
                    return Err(changed(self.input));
                }
                (file, self.start, self.taken)
            }
        };
        let mut options = MmapOptions::new();
        options.offset(start).len(length as usize);
        // SAFETY: the map is read as plain bytes, and `text` checks that they are UTF-8. Nobody
        // else can reach a temporary file, since it has no name. An input must not be truncated
        // while it is encoded; the documentation of `encode_files` says so.
        let map = unsafe { options.map(&file) };
        let map = map.map_err(|error| Error::io(IoAction::Map, &self.input.path, error))?;
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(LongText { map, folder: self.folder.to_path_buf(), replaced })
    }

    /// Reads the same bytes of the input again into a file, because some are invalid UTF-8.
    fn decode_into_file(self) -> Result<LongText> {
        let Self { input, folder, start, taken, .. } = self;
        let mut reader = Reader::open(input, start, Box::new(|| Ok(())))?;
        let mut writer = Self::into_file(input, folder)?;
        let mut bytes = Vec::new();
        while writer.taken < taken {
            let wanted = (taken - writer.taken).min(READ_SIZE as u64) as usize;
            if reader.read_at(&mut bytes, 0, wanted, input)? < wanted {
                return Err(changed(input));
            }
            writer.push(&bytes)?;
        }
        writer.finish()
    }
}

/// Creates a file that disappears with the process.
fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(SPILL);
    let created = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = created.map_err(|error| Error::io(IoAction::Create, &path, error))?;
    // Where an open file cannot be removed, it is removed with its folder.
    let _ = std::fs::remove_file(&path);
    Ok(file)
}
