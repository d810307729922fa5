//! What an encoding under way has done: a line of JSON for each thing that is safely in the files, so that a killed run can
//! be continued. A line that was cut short counts as not written.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Position;
use crate::data::store_writer::{ClosedChunk, StoreWriter};
use crate::{Error, Result};

const FILE_NAME: &str = "journal.jsonl";
/// Time between two lines about text.
const EVERY: Duration = Duration::from_millis(100);

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
enum Entry {
    /// The first line: what is being made.
    Begun { format_version: u32, work: Value },
    /// All text up to here is in the store.
    Text {
        #[serde(flatten)]
        text: TextDone,
        /// Chunks that were filled since the last such line.
        chunks: Vec<ClosedChunk>,
    },
    /// The validation store is whole; the training store is to keep so many tokens.
    Split { kept: u64, valid_bytes: u64 },
    /// What was at the place is out of the way; the new files move in.
    Moving,
}

/// How far the text is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextDone {
    pub position: Position,
    /// Tokens written.
    pub tokens: u64,
    /// Bytes of text they stand for.
    pub bytes: u64,
    /// Bytes of the inputs that were no UTF-8.
    pub replaced_bytes: u64,
}

/// What the lines say in all.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub text: TextDone,
    pub chunks: Vec<ClosedChunk>,
    pub split: Option<(u64, u64)>,
    pub moving: bool,
}

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Chunks that lines tell of.
    chunks: usize,
    written: Instant,
}

impl Journal {
    /// Begins one in `folder` about `work`.
    pub fn begin(folder: &Path, work: &Value) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = File::create(&path).map_err(|error| Error::io("cannot create", &path, error))?;
        let mut journal = Self { path, file, chunks: 0, written: Instant::now() };
        journal.add(&Entry::Begun { format_version: 1, work: work.clone() })?;
        Ok(journal)
    }

    /// Whether `folder` has one about `work`.
    pub fn is_about(folder: &Path, work: &Value) -> bool {
        read(&folder.join(FILE_NAME)).is_some_and(|(found, _, _)| found == *work)
    }

    /// Goes on with the one in `folder`.
    pub fn resume(folder: &Path) -> Result<(Self, Done)> {
        let path = folder.join(FILE_NAME);
        let Some((_, done, length)) = read(&path) else {
            return Err(Error::Internal(format!("{} cannot be read", path.display())));
        };
        let cannot_write = |error| Error::io("cannot write", &path, error);
        let file = File::options().append(true).open(&path).map_err(cannot_write)?;
        file.set_len(length).map_err(cannot_write)?;
        Ok((Self { path, file, chunks: done.chunks.len(), written: Instant::now() }, done))
    }

    /// Notes how far the text is, unless that was done just before.
    pub fn text(&mut self, text: TextDone, store: &StoreWriter, at_once: bool) -> Result<()> {
        if !at_once && self.written.elapsed() < EVERY {
            return Ok(());
        }
        let chunks = store.closed(self.chunks, text.tokens).to_vec();
        self.chunks += chunks.len();
        self.add(&Entry::Text { text, chunks })?;
        self.written = Instant::now();
        Ok(())
    }

    pub fn split(&mut self, kept: u64, valid_bytes: u64) -> Result<()> {
        self.add(&Entry::Split { kept, valid_bytes })
    }

    pub fn moving(&mut self) -> Result<()> {
        self.add(&Entry::Moving)
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|error| Error::Internal(format!("{}: {error}", self.path.display())))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| Error::io("cannot write", &self.path, error))
    }
}

/// What it is about, what is done, and the bytes of its whole lines.
fn read(path: &Path) -> Option<(Value, Done, u64)> {
    let text = std::fs::read(path).ok()?;
    let (mut work, mut done, mut length) = (None, Done::default(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let Ok(entry) = serde_json::from_slice(line) else { break };
        match entry {
            Entry::Begun { format_version: 1, work: found } => work = Some(found),
            Entry::Begun { .. } => return None,
            Entry::Text { text, chunks } => {
                done.text = text;
                done.chunks.extend(chunks);
            }
            Entry::Split { kept, valid_bytes } => done.split = Some((kept, valid_bytes)),
            Entry::Moving => done.moving = true,
        }
        length += line.len() as u64;
    }
    Some((work?, done, length))
}
