//! The journal of an encoding, with one line of JSON for each thing that is done, so that a killed
//! run can be resumed.
//!
//! ```text
//! begun   what is being encoded, and with which options
//! text    the ids of all text before `position` are in the training store      (repeated)
//! split   the validation store is complete; the training store will keep `kept` tokens
//! moving  the old files are out of the way, and the new files are moving in
//!
//! resume():
//!   read the lines up to the first that is incomplete or malformed; cut the file there
//!   shorten the training store to the tokens of the last `text` (or to `kept`)
//!   continue at its position
//! ```
//!
//! 1. A line is written after the data it describes. A kill between the two leaves data that no
//!    line covers, and resuming drops it.
//! 2. A line that was cut short has no line break and counts as not written.
//! 3. A kill loses no written pages, but a power cut may. So resuming compares each chunk,
//!    including the one in progress, with its checksum in the journal. Every 30 s everything is
//!    synced, and then a line says so; resuming falls back to the last such line, or else starts
//!    over.
//! 4. A line about text is written at most every 100 ms, so little work is lost and little is
//!    written.
//! 5. `begun` includes the size and modification time of each input, so a run with other files or
//!    options starts over.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::corpus::blocks::Position;
use crate::data::store_writer::{ClosedChunk, StoreWriter};
use crate::error::IoAction;
use crate::staging::sync_files;
use crate::whole_file::read_whole;
use crate::{Error, Result};

const FILE_NAME: &str = "journal.jsonl";
const FORMAT_VERSION: u32 = 2;
/// Minimum time between two lines about text.
const INTERVAL: Duration = Duration::from_millis(100);
/// Minimum time between two syncs. A sync stops the encoding for about as long as it takes to write
/// what the system has not yet written by itself.
const SYNC_INTERVAL: Duration = Duration::from_secs(30);

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
enum Entry {
    Begun {
        format_version: u32,
        work: Value,
    },
    Text {
        #[serde(flatten)]
        text: EncodedText,
        /// Chunks that have been filled since the last such line.
        chunks: Vec<ClosedChunk>,
        /// Whether all files were synced before this line.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        synced: bool,
    },
    Split {
        kept: u64,
        valid_bytes: u64,
    },
    Moving,
}

/// The part of the text that has been encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EncodedText {
    pub position: Position,
    /// Tokens written.
    pub tokens: u64,
    /// The checksum of the tokens in the last chunk, if it is not full.
    pub partial: u64,
    /// Bytes of the text that the tokens encode.
    pub bytes: u64,
    /// Bytes of the inputs that were invalid UTF-8.
    pub replaced_bytes: u64,
}

/// The split into training and validation tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    /// Tokens that stay in the training store.
    pub kept: u64,
    /// Bytes of the text of the validation tokens.
    pub valid_bytes: u64,
}

/// The content of all lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    pub text: EncodedText,
    pub chunks: Vec<ClosedChunk>,
    pub split: Option<Split>,
    pub moving: bool,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// The number of chunks in the lines so far.
    chunks: usize,
    written: Instant,
    synced: Instant,
}

impl Journal {
    /// Creates the journal of `work` in `folder`.
    pub fn begin(folder: &Path, work: &Value) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = File::create(&path);
        let file = file.map_err(|error| Error::io(IoAction::Create, &path, error))?;
        let mut journal = Self::open(path, file, 0);
        journal.add(&Entry::Begun { format_version: FORMAT_VERSION, work: work.clone() })?;
        Ok(journal)
    }

    fn open(path: PathBuf, file: File, chunks: usize) -> Self {
        Self { path, file, chunks, written: Instant::now(), synced: Instant::now() }
    }

    /// Returns whether `folder` holds a journal of this work.
    pub fn is_about(folder: &Path, work: &Value) -> bool {
        read(&folder.join(FILE_NAME)).is_some_and(|found| found.work == *work)
    }

    /// Opens the journal in `folder` to continue it after its last line, or, with `synced`, after
    /// the last synced line. Returns `None` if there is no such line.
    pub fn resume(folder: &Path, synced: bool) -> Result<Option<(Self, Done)>> {
        let path = folder.join(FILE_NAME);
        let contents = read(&path)
            .ok_or_else(|| Error::Internal(format!("{} cannot be read", path.display())))?;
        let end = if synced { contents.synced } else { Some((contents.done, contents.length)) };
        let Some((done, length)) = end else { return Ok(None) };
        let cannot_write = |error| Error::io(IoAction::Write, &path, error);
        let file = File::options().append(true).open(&path).map_err(cannot_write)?;
        file.set_len(length).map_err(cannot_write)?;
        Ok(Some((Self::open(path, file, done.chunks.len()), done)))
    }

    /// Records how much text has been encoded, if the last record is old enough or `force` is set.
    pub fn text(&mut self, text: EncodedText, store: &StoreWriter, force: bool) -> Result<()> {
        if !force && self.written.elapsed() < INTERVAL {
            return Ok(());
        }
        let chunks = store.closed(self.chunks, text.tokens).to_vec();
        self.chunks += chunks.len();
        let synced = self.synced.elapsed() >= SYNC_INTERVAL;
        if synced {
            sync_files(store.folder())?;
        }
        self.add(&Entry::Text { text, chunks, synced })?;
        if synced {
            self.sync()?;
            self.synced = Instant::now();
        }
        self.written = Instant::now();
        Ok(())
    }

    pub fn split(&mut self, split: Split) -> Result<()> {
        let Split { kept, valid_bytes } = split;
        self.add(&Entry::Split { kept, valid_bytes })?;
        self.sync()
    }

    pub fn moving(&mut self) -> Result<()> {
        self.add(&Entry::Moving)?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io(IoAction::Write, &self.path, error))
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|error| Error::Internal(format!("{}: {error}", self.path.display())))?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.map_err(|error| Error::io(IoAction::Write, &self.path, error))
    }
}

/// The complete lines of a journal.
struct Contents {
    work: Value,
    done: Done,
    /// Length of the lines in bytes.
    length: u64,
    /// The same for the lines up to the last synced one.
    synced: Option<(Done, u64)>,
}

fn read(path: &Path) -> Option<Contents> {
    let text = read_whole(path, Error::InvalidStore).ok()?;
    let (mut work, mut done, mut length, mut last_synced) = (None, Done::default(), 0, None);
    for line in text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let Ok(entry) = serde_json::from_slice(line) else { break };
        length += line.len() as u64;
        match entry {
            Entry::Begun { format_version: FORMAT_VERSION, work: found } => work = Some(found),
            Entry::Begun { .. } => return None,
            Entry::Text { text, chunks, synced } => {
                done.text = text;
                done.chunks.extend(chunks);
                if synced {
                    last_synced = Some((done.clone(), length));
                }
            }
            Entry::Split { kept, valid_bytes } => done.split = Some(Split { kept, valid_bytes }),
            Entry::Moving => done.moving = true,
        }
    }
    Some(Contents { work: work?, done, length, synced: last_synced })
}
