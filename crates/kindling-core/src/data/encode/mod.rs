//! Text files (`crate::corpus`) to token stores in one streaming pass, split into training and validation tokens.
//!
//! | file | what |
//! |---|---|
//! | `blocks.rs` | the text in blocks that may be encoded apart |
//! | `documents.rs` | documents and their ids |
//! | `options.rs` | how text becomes a store |
//! | `long_text.rs` | text without a place to cut, which stays in a file |
//! | `pipeline.rs` | reading, encoding and writing on all threads |
//! | `journal.rs` | what is done, for a run that goes on after a kill |

mod blocks;
mod documents;
mod journal;
#[cfg(test)]
mod long_tests;
mod long_text;
mod options;
mod pipeline;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::blocks::Blocks;
use self::documents::Documents;
use self::journal::{Done, Journal, TextDone};
use super::destination::Destination;
use super::element::Element;
use super::metadata::Metadata;
use super::store_writer::{StoreWriter, check_chunk_size};
use crate::corpus::inputs::Input;
use crate::corpus::{inputs, json_lines, reader};
use crate::staging::StagedFolder;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

pub use self::options::{Document, EncodeOptions};
pub use crate::corpus::Format;
pub use crate::progress::SendProgress;

/// Tokens copied at a time into the validation store.
const COPY: u64 = 1 << 18;
/// Where the stores are made within a temporary folder.
const ROOT: &str = "made";

/// What encoding gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeSummary {
    /// Tokens in all.
    pub tokens: u64,
    /// Bytes of the text they stand for.
    pub bytes: u64,
    /// Bytes of the files that were no UTF-8 and became U+FFFD.
    pub replaced_bytes: u64,
    /// Bytes of text that an earlier, killed run had encoded.
    pub resumed_bytes: u64,
    /// The store of the training tokens.
    pub train: PathBuf,
    /// The store of the validation tokens.
    pub valid: Option<PathBuf>,
}

/// A place in the text: bytes of an input, once decompressed, and lines of JSON Lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    input: usize,
    offset: u64,
    line: u64,
}

/// Encodes `files` one after the other: text or JSON Lines, plain, gzip or zstd; patterns of names, and `-` for standard
/// input. `out` gets `tokenizer`, `train_chunks` and, with a valid fraction, `valid_chunks`; a name that ends in `_chunks` is
/// the store itself. Progress counts bytes of the files as they are on the disk.
///
/// A process that is killed leaves the place as it was and a hidden folder beside it; the same call goes on from there.
///
/// # Errors
/// `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`, `ERR_INVALID_ARGUMENT`, `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`,
/// what `progress` returns; nothing is left behind, and a store that was there is as it was.
pub fn encode_files(
    files: &[PathBuf],
    tokenizer: &Arc<Tokenizer>,
    out: &Path,
    options: &EncodeOptions,
    progress: &mut SendProgress<'_>,
) -> Result<EncodeSummary> {
    check(options, tokenizer, out)?;
    let inputs = inputs::find(files, options.format)?;
    let documents = Documents::new(options, tokenizer, &inputs)?;
    let destination = Destination::new(out)?;
    destination.check_replaceable(Some(tokenizer.as_ref()))?;
    let lengths = token_lengths(tokenizer)?;
    let progress = Mutex::new(progress);
    let report =
        |done, total| (progress.lock().unwrap_or_else(PoisonError::into_inner))(done, total);
    let job = Job {
        options,
        tokenizer,
        inputs: &inputs,
        documents: &documents,
        destination: &destination,
        lengths: &lengths,
        report: Report(&report),
    };
    let Begun { staged, mut journal, done, train } = job.begin()?;
    let resumed_bytes = done.text.bytes;
    let root = staged.path().join(ROOT);
    let text = match job.make(&root, train, &mut journal, &done) {
        Err(Error::Cancelled) if options.keep_when_cancelled && job.can_be_resumed() => {
            staged.keep();
            return Err(Error::Cancelled);
        }
        made => made?,
    };
    destination.install(staged, &root, done.moving, || journal.moving())?;
    let TextDone { tokens, bytes, replaced_bytes, .. } = text;
    let valid = (options.valid_fraction > 0.0).then(|| Destination::valid(out));
    Ok(EncodeSummary {
        tokens,
        bytes,
        replaced_bytes,
        resumed_bytes,
        train: destination.train(out),
        valid,
    })
}

fn check(options: &EncodeOptions, tokenizer: &Tokenizer, out: &Path) -> Result<()> {
    check_chunk_size(options.chunk_size)?;
    let valid_fraction = options.valid_fraction;
    if !(0.0..1.0).contains(&valid_fraction) {
        let message =
            format!("valid_fraction is {valid_fraction}; it must be at least 0 and below 1");
        return Err(Error::argument(message));
    }
    if Destination::new(out)?.is_store() && valid_fraction > 0.0 {
        return Err(Error::argument(format!(
            "{} is one store; give a folder whose name does not end in _chunks for a valid_fraction",
            out.display()
        )));
    }
    let (element, vocab_size) = (options.element, tokenizer.vocab_size());
    if Element::of_chunks(element.name()).is_none() || vocab_size > element.ids() {
        let name = element.name();
        let message =
            format!("a vocabulary of {vocab_size} does not fit token_dtype {name}; use int32");
        return Err(Error::argument(message));
    }
    Ok(())
}

/// Bytes of the text of each token.
fn token_lengths(tokenizer: &Tokenizer) -> Result<Vec<u64>> {
    (0..tokenizer.vocab_size() as u32)
        .map(|id| Ok(tokenizer.token_bytes(id)?.len() as u64))
        .collect()
}

/// The caller's progress, shared by threads.
#[derive(Clone, Copy)]
struct Report<'a>(&'a (dyn Fn(u64, u64) -> Result<()> + Sync + 'a));

/// An encoding to go on with.
struct Begun {
    staged: StagedFolder,
    journal: Journal,
    done: Done,
    /// None once everything is made.
    train: Option<StoreWriter>,
}

/// One call of `encode_files`.
struct Job<'a> {
    options: &'a EncodeOptions,
    tokenizer: &'a Arc<Tokenizer>,
    inputs: &'a [Input],
    documents: &'a Documents<'a>,
    destination: &'a Destination<'a>,
    lengths: &'a [u64],
    report: Report<'a>,
}

impl Job<'_> {
    /// What an earlier run about the same work left, if it is as that run wrote it; or nothing yet.
    fn begin(&self) -> Result<Begun> {
        let work = self.describe();
        let wanted = |folder: &Path| {
            self.options.resume
                && self.can_be_resumed()
                && self.destination.train(&folder.join(ROOT)).is_dir()
                && Journal::is_about(folder, &work)
        };
        let (mut staged, adopted) = self.destination.stage(wanted)?;
        if adopted {
            let (journal, done) = Journal::resume(staged.path())?;
            match self.open(staged.path(), &done) {
                Ok(train) => return Ok(Begun { staged, journal, done, train }),
                // After a power cut, files may have their sizes and not their contents.
                Err(Error::InvalidStore(_)) => drop(staged),
                Err(error) => return Err(error),
            }
            staged = self.destination.stage(|_| false)?.0;
        }
        let (journal, done) = (Journal::begin(staged.path(), &work)?, Done::default());
        let train = self.open(staged.path(), &done)?;
        Ok(Begun { staged, journal, done, train })
    }

    /// The training store where `done` ends, unless it is on its way to its place.
    fn open(&self, folder: &Path, done: &Done) -> Result<Option<StoreWriter>> {
        if done.moving {
            return Ok(None);
        }
        let EncodeOptions { chunk_size, element, .. } = *self.options;
        let tokens = done.split.map_or(done.text.tokens, |(kept, _)| kept);
        let whole = (tokens / chunk_size) as usize;
        let chunks = done.chunks.iter().take(whole).cloned().collect();
        let folder = self.destination.train(&folder.join(ROOT));
        StoreWriter::resume(&folder, chunk_size, element, chunks, tokens).map(Some)
    }

    /// All that decides what is written.
    fn describe(&self) -> Value {
        let EncodeOptions {
            chunk_size,
            valid_fraction,
            element,
            text_field,
            document,
            append_eot,
            ..
        } = self.options;
        json!({
            "inputs": self.inputs,
            "tokenizer": self.tokenizer.hash(),
            "tokenizer_path": self.destination.tokenizer_path(self.options.tokenizer_path.as_deref()),
            "chunk_size": chunk_size,
            "valid_fraction": valid_fraction,
            "dtype": element.name(),
            "text_field": text_field,
            "document": document,
            "append_eot": append_eot,
        })
    }

    fn can_be_resumed(&self) -> bool {
        !self.inputs.iter().any(Input::is_stdin)
    }

    /// Makes everything below `root`, the stores from where `done` ends.
    fn make(
        &self,
        root: &Path,
        train: Option<StoreWriter>,
        journal: &mut Journal,
        done: &Done,
    ) -> Result<TextDone> {
        let Some(train) = train else { return Ok(done.text) };
        std::thread::scope(|scope| {
            // Beside the encoding, which it would follow on one thread.
            let saved = scope.spawn(|| self.destination.save_tokenizer(root, self.tokenizer));
            let text = self.make_stores(root, train, journal, done)?;
            let panicked =
                |_| Err(Error::Internal("a thread that saves the tokenizer panicked".to_owned()));
            saved.join().unwrap_or_else(panicked)?;
            Ok(text)
        })
    }

    fn make_stores(
        &self,
        root: &Path,
        mut train: StoreWriter,
        journal: &mut Journal,
        done: &Done,
    ) -> Result<TextDone> {
        let mut text = done.text;
        let valid_bytes = if let Some((_, valid_bytes)) = done.split {
            valid_bytes
        } else {
            self.encode(root, &mut train, journal, &mut text)?;
            if text.tokens == 0 {
                return Err(Error::EmptyCorpus { path: self.inputs[0].path.clone() });
            }
            let splits = self.options.valid_fraction > 0.0;
            if splits { self.split(root, &mut train, journal, &text)? } else { 0 }
        };
        train.finish(|metadata| {
            self.complete(metadata, text.bytes - valid_bytes, text.replaced_bytes)
        })?;
        Ok(text)
    }

    fn encode(
        &self,
        root: &Path,
        train: &mut StoreWriter,
        journal: &mut Journal,
        text: &mut TextDone,
    ) -> Result<()> {
        // Beside what is moved to its place in the end.
        let folder = root.parent().unwrap_or(root);
        let blocks = Blocks::new(
            self.inputs,
            self.documents,
            self.tokenizer,
            folder,
            text.position,
            self.report,
        );
        let work = pipeline::Work {
            inputs: self.inputs,
            documents: self.documents,
            tokenizer: self.tokenizer,
            threads: self.options.threads.max(1),
            report: self.report,
        };
        // With the blocks that end within a document.
        let mut all = *text;
        let ended = pipeline::run(&work, blocks, |encoded| {
            train.push(&encoded.ids)?;
            all.tokens = train.len();
            all.bytes += encoded.text_bytes;
            all.replaced_bytes += encoded.replaced_bytes;
            if let Some(position) = encoded.block.after {
                *text = TextDone { position, ..all };
                journal.text(*text, train, false)?;
            }
            Ok(())
        });
        journal.text(*text, train, true)?;
        ended
    }

    /// Copies the tail of `train` to the validation store, then cuts it off; gives the bytes of its text.
    fn split(
        &self,
        root: &Path,
        train: &mut StoreWriter,
        journal: &mut Journal,
        text: &TextDone,
    ) -> Result<u64> {
        let EncodeOptions { chunk_size, element, valid_fraction, .. } = *self.options;
        let kept = (text.tokens as f64 * (1.0 - valid_fraction)).floor() as u64;
        if kept == 0 {
            let message = format!(
                "valid_fraction {valid_fraction} leaves no training token of {}",
                text.tokens
            );
            return Err(Error::argument(message));
        }
        let store = train.read_back()?;
        let folder = Destination::valid(root);
        let mut valid = StoreWriter::resume(&folder, chunk_size, element, Vec::new(), 0)?;
        let (mut bytes, mut start) = (0, kept);
        while start < store.len() {
            let end = store.len().min(start + COPY);
            let ids: Vec<u32> =
                store.load_by_range(start, end)?.into_iter().map(|id| id as u32).collect();
            bytes += ids.iter().map(|&id| self.lengths[id as usize]).sum::<u64>();
            valid.push(&ids)?;
            (self.report.0)(text.bytes, text.bytes)?;
            start = end;
        }
        drop(store);
        valid.finish(|metadata| self.complete(metadata, bytes, text.replaced_bytes))?;
        journal.split(kept, bytes)?;
        train.cut(kept)?;
        Ok(bytes)
    }

    /// Fills in what the writer of a store does not know.
    fn complete(&self, metadata: &mut Metadata, bytes: u64, replaced_bytes: u64) {
        metadata.bytes = Some(bytes);
        metadata.replaced_bytes = replaced_bytes;
        metadata.tokenizer_hash = Some(self.tokenizer.hash());
        metadata.tokenizer_path =
            self.destination.tokenizer_path(self.options.tokenizer_path.as_deref());
    }
}
