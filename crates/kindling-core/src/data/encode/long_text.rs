//! Text in which no place to cut was found: it stays in a file and is mapped, so that memory does not depend on its length.
//! The file is the input where that is plain UTF-8, otherwise one without a name that holds the text decoded.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::inputs::Input;
use super::reader::Reader;
use crate::corpus::LossyDecoder;
use crate::{Error, Result};

const SPILL: &str = "text";

/// One such text.
#[derive(Debug)]
pub(super) struct LongText {
    map: Mmap,
    /// Where files without a name can be made.
    pub folder: PathBuf,
    /// Bytes that were no UTF-8.
    pub replaced: u64,
}

impl LongText {
    /// The text, if the file is as it was when it was read.
    pub fn text(&self, input: &Input) -> Result<&str> {
        simdutf8::basic::from_utf8(&self.map).map_err(|_| changed(input))
    }

    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }
}

fn changed(input: &Input) -> Error {
    Error::InvalidCorpus(format!(
        "{} changed while it was encoded; encode it again",
        input.path.display()
    ))
}

/// Takes the bytes of one long text, in order.
pub(super) struct Collector<'a> {
    input: &'a Input,
    /// Where files without a name can be made.
    folder: &'a Path,
    /// Byte of the input at which the text begins.
    start: u64,
    taken: u64,
    decoder: LossyDecoder,
    decoded: String,
    /// None where the input itself can be mapped.
    spill: Option<File>,
}

impl<'a> Collector<'a> {
    pub fn new(
        input: &'a Input,
        reader: &Reader<'_>,
        start: u64,
        folder: &'a Path,
    ) -> Result<Self> {
        let spill = if reader.is_plain_file() { None } else { Some(nameless(folder)?) };
        Ok(Self::with(input, folder, start, spill))
    }

    /// One of bytes that are not those of the input.
    pub fn into_file(input: &'a Input, folder: &'a Path) -> Result<Self> {
        Ok(Self::with(input, folder, 0, Some(nameless(folder)?)))
    }

    fn with(input: &'a Input, folder: &'a Path, start: u64, spill: Option<File>) -> Self {
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
            written.map_err(|error| Error::io("cannot write", self.folder, error))?;
        }
        self.decoded.clear();
        Ok(())
    }

    pub fn finish(mut self) -> Result<LongText> {
        self.decoder.finish(&mut self.decoded);
        self.write()?;
        let replaced = self.decoder.replaced_bytes();
        let (file, start, length) = match self.spill.take() {
            Some(file) => {
                let cannot_read = |error| Error::io("cannot read", self.folder, error);
                let length = file.metadata().map_err(cannot_read)?.len();
                (file, 0, length)
            }
            None if replaced > 0 => return self.decode_again(),
            None => {
                let cannot_read = |error| Error::io("cannot read", &self.input.path, error);
                let file = File::open(&self.input.path).map_err(cannot_read)?;
                if file.metadata().map_err(cannot_read)?.len() < self.start + self.taken {
                    return Err(changed(self.input));
                }
                (file, self.start, self.taken)
            }
        };
        let mut options = MmapOptions::new();
        options.offset(start).len(length as usize);
        // SAFETY: only plain bytes are read through the map, which `text` has checked. A file of ours has no name. That
        // nobody changes an input while it is read is asked of the user.
        let map = unsafe { options.map(&file) };
        let map = map.map_err(|error| Error::io("cannot map", &self.input.path, error))?;
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(LongText { map, folder: self.folder.to_path_buf(), replaced })
    }

    /// The same bytes of the input again, into a file, since some are no UTF-8.
    fn decode_again(self) -> Result<LongText> {
        let Self { input, folder, start, taken, .. } = self;
        let mut reader = Reader::open(input, start, Box::new(|| Ok(())))?;
        let mut again = Self::into_file(input, folder)?;
        let mut bytes = Vec::new();
        while again.taken < taken {
            let wanted = (taken - again.taken).min(super::blocks::BLOCK as u64) as usize;
            if reader.read_behind(&mut bytes, 0, wanted, input)? < wanted {
                return Err(changed(input));
            }
            again.push(&bytes)?;
        }
        again.finish()
    }
}

/// A file that is gone with the process.
fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(SPILL);
    let made = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = made.map_err(|error| Error::io("cannot create", &path, error))?;
    // Where an open file cannot be removed, its folder takes it along.
    let _ = std::fs::remove_file(&path);
    Ok(file)
}
