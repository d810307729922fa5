//! Text too long for memory in which no cut was found. It is decoded to an unlinked temporary file
//! and mapped, so memory does not depend on its length. The input itself is never mapped: another
//! process could change it, which for a `&str` is undefined behaviour, or shorten it, which raises
//! SIGBUS.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::utf8::LossyDecoder;
use crate::error::IoAction;
use crate::{Error, Result};

/// Name of the temporary file until it is unlinked.
const SPILL: &str = "text";

/// A text in a memory-mapped file.
#[derive(Debug)]
pub(crate) struct LongText {
    map: Mmap,
    /// The folder for further temporary files.
    pub folder: PathBuf,
    /// Bytes replaced by U+FFFD.
    pub replaced: u64,
}

impl LongText {
    pub fn text(&self) -> Result<&str> {
        simdutf8::basic::from_utf8(&self.map)
            .map_err(|_| Error::Internal("decoded text is not UTF-8".to_owned()))
    }

    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }
}

/// Writes one long text, whose bytes are pushed in order.
pub(crate) struct LongTextWriter<'a> {
    folder: &'a Path,
    decoder: LossyDecoder,
    decoded: String,
    file: File,
}

impl<'a> LongTextWriter<'a> {
    /// Begins a text in a temporary file in `folder`.
    pub fn new(folder: &'a Path) -> Result<Self> {
        let (decoder, decoded) = (LossyDecoder::default(), String::new());
        Ok(Self { folder, decoder, decoded, file: nameless(folder)? })
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.decoder.push(bytes, &mut self.decoded);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let written = self.file.write_all(self.decoded.as_bytes());
        self.decoded.clear();
        written.map_err(|error| Error::io(IoAction::Write, self.folder, error))
    }

    /// Ends the text and maps it.
    pub fn finish(mut self) -> Result<LongText> {
        self.decoder.finish(&mut self.decoded);
        self.write()?;
        let replaced = self.decoder.replaced_bytes();
        // SAFETY: the file is unlinked, so no other process can open it and change what `Self`
        // wrote.
        let map = unsafe { Mmap::map(&self.file) };
        let map = map.map_err(|error| Error::io(IoAction::Map, self.folder, error))?;
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(LongText { map, folder: self.folder.to_path_buf(), replaced })
    }
}

/// Creates a file without a name, which disappears when it is closed.
fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(SPILL);
    let created = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = created.map_err(|error| Error::io(IoAction::Create, &path, error))?;
    // Where an open file cannot be removed, it goes when its folder is removed.
    let _ = std::fs::remove_file(&path);
    Ok(file)
}
