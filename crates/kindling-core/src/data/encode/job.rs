//! One encoding, from the first block of text to the finished stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::documents::DocumentEncoder;
use super::journal::{Done, EncodedText, Journal, Split};
use super::options::{EncodeOptions, EncodeSummary};
use super::pipeline;
use crate::corpus::blocks::{BLOCK_SIZE, BlockOptions, BlockReader, LongTexts};
use crate::corpus::inputs::{self, Input};
use crate::data::destination::Destination;
use crate::data::metadata::Metadata;
use crate::data::store_writer::StoreWriter;
use crate::progress::{Report, SendProgress, shared};
use crate::staging::StagedFolder;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Tokens copied at a time into the validation store.
const COPY: u64 = 1 << 18;
/// The folder within the temporary folder in which the stores are written.
const ROOT: &str = "made";

/// Encodes `files` one after another: text, JSON Lines or Parquet, plain or compressed with gzip or
/// zstd. They may be patterns of file names, and `-` for standard input. The files must not change
/// in the meantime.
///
/// The folder `out` gets `tokenizer`, `train_chunks` and, with a `valid_fraction`, `valid_chunks`.
/// If its name ends in `_chunks`, it is the store itself. Progress counts bytes on disk.
///
/// If the process is killed before it moves the stores into place, `out` is as it was. The same
/// call resumes from a hidden folder that is left behind.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`, `ERR_INVALID_ARGUMENT`,
/// `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, and any error of `progress`. Nothing is left behind then,
/// and an existing store is unchanged.
pub fn encode_files(
    files: &[PathBuf],
    tokenizer: &Arc<Tokenizer>,
    out: &Path,
    options: &EncodeOptions,
    progress: &mut SendProgress<'_>,
) -> Result<EncodeSummary> {
    let destination = Destination::new(out)?;
    options.check(tokenizer, &destination)?;
    let inputs = inputs::find(files, options.format, &options.text_field)?;
    let encoder = DocumentEncoder::new(options, tokenizer, &inputs)?;
    destination.check_replaceable(Some(tokenizer.as_ref()))?;
    let job = Job {
        options,
        tokenizer,
        inputs: &inputs,
        encoder: &encoder,
        destination: &destination,
        token_lengths: &token_lengths(tokenizer)?,
        report: &shared(progress),
    };
    let Started { staged, mut journal, done, train } = job.start()?;
    let root = staged.path().join(ROOT);
    let text = match job.write_all(&root, train, &mut journal, &done) {
        Err(Error::Cancelled) if options.keep_when_cancelled && job.can_resume() => {
            staged.keep();
            return Err(Error::Cancelled);
        }
        result => result?,
    };
    destination.install(staged, &root, done.moving, || journal.moving())?;
    Ok(EncodeSummary {
        tokens: text.tokens,
        bytes: text.bytes,
        replaced_bytes: text.replaced_bytes,
        resumed_bytes: done.text.bytes,
        train: destination.train(out),
        valid: (options.valid_fraction > 0.0).then(|| Destination::valid(out)),
    })
}

/// Returns the length in bytes of each token.
fn token_lengths(tokenizer: &Tokenizer) -> Result<Vec<u64>> {
    (0..tokenizer.vocab_size() as u32)
        .map(|id| Ok(tokenizer.token_bytes(id)?.len() as u64))
        .collect()
}

/// The state in which an encoding starts, either new or as a killed run left it.
struct Started {
    staged: StagedFolder,
    journal: Journal,
    done: Done,
    /// `None` if the stores are complete.
    train: Option<StoreWriter>,
}

/// One call of `encode_files`.
struct Job<'a> {
    options: &'a EncodeOptions,
    tokenizer: &'a Arc<Tokenizer>,
    inputs: &'a [Input],
    encoder: &'a DocumentEncoder<'a>,
    destination: &'a Destination<'a>,
    /// The length in bytes of each token.
    token_lengths: &'a [u64],
    report: Report<'a>,
}

impl Job<'_> {
    /// Resumes what a killed run of the same work left, if it is undamaged, and starts over
    /// otherwise.
    fn start(&self) -> Result<Started> {
        let work = self.describe();
        let is_same_work = |folder: &Path| {
            self.options.resume
                && self.can_resume()
                && self.destination.train(&folder.join(ROOT)).is_dir()
                && Journal::is_about(folder, &work)
        };
        let (mut staged, adopted) = self.destination.stage(is_same_work)?;
        if adopted {
            // A power cut can leave files with the right size and the wrong content.
            for synced in [false, true] {
                let Some((journal, done)) = Journal::resume(staged.path(), synced)? else { break };
                if !done.moving {
                    self.destination.restore(staged.path());
                }
                match self.open_train(staged.path(), &done) {
                    Ok(train) => return Ok(Started { staged, journal, done, train }),
                    Err(Error::InvalidStore(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            drop(staged);
            staged = self.destination.stage(|_| false)?.0;
        }
        let (journal, done) = (Journal::begin(staged.path(), &work)?, Done::default());
        let train = self.open_train(staged.path(), &done)?;
        Ok(Started { staged, journal, done, train })
    }

    /// Opens the training store where `done` ends, unless it is already being moved into place.
    fn open_train(&self, folder: &Path, done: &Done) -> Result<Option<StoreWriter>> {
        if done.moving {
            return Ok(None);
        }
        let EncodeOptions { chunk_size, element, .. } = *self.options;
        let tokens = done.split.map_or(done.text.tokens, |split| split.kept);
        let full = (tokens / chunk_size) as usize;
        let chunks = done.chunks.iter().take(full).cloned().collect();
        let folder = self.destination.train(&folder.join(ROOT));
        // `split` comes after a sync, so what it keeps needs no checksum.
        let partial = done.split.is_none().then_some(done.text.partial);
        StoreWriter::resume(&folder, chunk_size, element, chunks, tokens, partial).map(Some)
    }

    /// Returns everything that determines the contents of the stores.
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
            "tokenizer_path": self.tokenizer_path(),
            "chunk_size": chunk_size,
            "valid_fraction": valid_fraction,
            "dtype": element.name(),
            "text_field": text_field,
            "document": document,
            "append_eot": append_eot,
        })
    }

    fn tokenizer_path(&self) -> Option<String> {
        self.destination.tokenizer_path(self.options.tokenizer_path.as_deref())
    }

    fn can_resume(&self) -> bool {
        !self.inputs.iter().any(Input::is_stdin)
    }

    /// Writes everything below `root`, continuing the stores where `done` ends.
    fn write_all(
        &self,
        root: &Path,
        train: Option<StoreWriter>,
        journal: &mut Journal,
        done: &Done,
    ) -> Result<EncodedText> {
        let Some(train) = train else { return Ok(done.text) };
        std::thread::scope(|scope| {
            // Saved on another thread, since it would otherwise add to the time if one thread
            // encodes.
            let saved = scope.spawn(|| self.destination.save_tokenizer(root, self.tokenizer));
            let text = self.write_stores(root, train, journal, done)?;
            let panicked =
                |_| Err(Error::Internal("the thread that saves the tokenizer panicked".to_owned()));
            saved.join().unwrap_or_else(panicked)?;
            Ok(text)
        })
    }

    fn write_stores(
        &self,
        root: &Path,
        mut train: StoreWriter,
        journal: &mut Journal,
        done: &Done,
    ) -> Result<EncodedText> {
        let mut text = done.text;
        let valid_bytes = if let Some(split) = done.split {
            split.valid_bytes
        } else {
            self.encode(root, &mut train, journal, &mut text)?;
            if text.tokens == 0 {
                return Err(Error::EmptyCorpus { path: self.inputs[0].path.clone() });
            }
            let splits = self.options.valid_fraction > 0.0;
            if splits { self.split(root, &mut train, journal, &text)? } else { 0 }
        };
        train.finish(|metadata| {
            self.complete(metadata, text.bytes - valid_bytes, text.replaced_bytes);
        })?;
        Ok(text)
    }

    /// Encodes the text from `text.position` on into the training store, and advances `text`.
    fn encode(
        &self,
        root: &Path,
        train: &mut StoreWriter,
        journal: &mut Journal,
        text: &mut EncodedText,
    ) -> Result<()> {
        let text_cut = |bytes: &[u8]| self.tokenizer.last_cut(bytes);
        let options = BlockOptions {
            inputs: self.inputs,
            document: self.encoder.document,
            text_cut: &text_cut,
            block_size: BLOCK_SIZE,
            max_bytes: u64::MAX,
            // Not in `root`, whose contents are moved into place at the end.
            long: LongTexts::Spill(root.parent().unwrap_or(root)),
            report: self.report,
        };
        let blocks = BlockReader::new(options, text.position);
        let shared = pipeline::Shared {
            inputs: self.inputs,
            encoder: self.encoder,
            threads: self.options.threads.max(1),
            report: self.report,
        };
        self.tokenizer.expect_much_text();
        // Unlike `text`, includes blocks that end within a document, where reading cannot resume.
        let mut all = *text;
        let result = pipeline::run(&shared, blocks, |encoded| {
            train.push(&encoded.ids)?;
            (all.tokens, all.partial) = (train.len(), train.partial_checksum());
            all.bytes += encoded.text_bytes;
            all.replaced_bytes += encoded.replaced_bytes;
            if let Some(position) = encoded.block.resume_at {
                *text = EncodedText { position, ..all };
                journal.text(*text, train, false)?;
            }
            Ok(())
        });
        journal.text(*text, train, true)?;
        result
    }

    /// Moves the last tokens of `train` to the validation store. Returns the number of bytes of
    /// their text.
    fn split(
        &self,
        root: &Path,
        train: &mut StoreWriter,
        journal: &mut Journal,
        text: &EncodedText,
    ) -> Result<u64> {
        let EncodeOptions { chunk_size, element, valid_fraction, .. } = *self.options;
        let kept = (text.tokens as f64 * (1.0 - valid_fraction)).floor() as u64;
        if kept == 0 {
            return Err(Error::argument(format!(
                "valid_fraction {valid_fraction} of {} tokens leaves none for training; lower it",
                text.tokens
            )));
        }
        let store = train.read_back()?;
        let folder = Destination::valid(root);
        let mut valid = StoreWriter::resume(&folder, chunk_size, element, Vec::new(), 0, None)?;
        let (mut valid_bytes, mut start) = (0, kept);
        while start < store.len() {
            let end = store.len().min(start + COPY);
            let ids: Vec<u32> =
                store.load_by_range(start, end)?.into_iter().map(|id| id as u32).collect();
            valid_bytes += ids.iter().map(|&id| self.token_lengths[id as usize]).sum::<u64>();
            valid.push(&ids)?;
            (self.report)(text.bytes, text.bytes)?;
            start = end;
        }
        drop(store);
        valid.finish(|metadata| self.complete(metadata, valid_bytes, text.replaced_bytes))?;
        journal.split(Split { kept, valid_bytes })?;
        train.truncate(kept)?;
        Ok(valid_bytes)
    }

    /// Sets the metadata that a `StoreWriter` does not know.
    fn complete(&self, metadata: &mut Metadata, bytes: u64, replaced_bytes: u64) {
        metadata.bytes = Some(bytes);
        metadata.replaced_bytes = replaced_bytes;
        metadata.tokenizer_hash = Some(self.tokenizer.hash());
        metadata.tokenizer_path = self.tokenizer_path();
    }
}
