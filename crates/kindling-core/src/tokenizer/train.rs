//! Learning a tokenizer from files: count pre-tokens (or characters) over blocks of text, then merge.
//!
//! Memory holds the blocks at work and the distinct pre-tokens, never the text. The result depends on the text alone, not on
//! threads or blocks.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::blocks::BlockCutter;
use super::byte_chars::{BYTE_ORDER, to_text};
use super::merge_learner::MergeLearner;
use super::parts::Parts;
use super::pretokenize::pretokens;
use super::special::{Segment, SpecialTokens};
use super::{Kind, Tokenizer};
use crate::progress::Progress;
use crate::{Error, Result};

/// Bytes read from a file at a time.
const READ: usize = 1 << 20;
/// Code points.
const CODE_POINTS: usize = 0x11_0000;

/// What to learn.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Tokens wanted: special tokens + 256 bytes + merges. Fewer where the text has no more pairs. Not used by `Kind::Chars`.
    pub vocab_size: usize,
    /// Special tokens; they get the first ids, in this order.
    pub special_tokens: Vec<String>,
    /// Kind of tokenizer.
    pub kind: Kind,
    /// Threads that work on it.
    pub threads: usize,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrainSummary {
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of them that were not UTF-8 and were read as U+FFFD.
    pub replaced_bytes: u64,
}

type Counts = FxHashMap<Box<[u8]>, u64>;

impl Tokenizer {
    /// Learns a tokenizer from the text of `files`. No pre-token goes from one file into the next.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS` where no file has any text, `ERR_INVALID_ARGUMENT` for a `vocab_size` that special
    /// tokens and bytes do not fit in or for special tokens that are empty, repeated or written as a byte is, the system's
    /// errors, and what `progress` returns.
    pub fn train(
        files: &[PathBuf],
        options: &TrainOptions,
        progress: &mut Progress,
    ) -> Result<(Self, TrainSummary)> {
        Self::train_with_reads_of(READ, files, options, progress)
    }

    /// `train`, reading `read` bytes at a time.
    pub(super) fn train_with_reads_of(
        read: usize,
        files: &[PathBuf],
        options: &TrainOptions,
        progress: &mut Progress,
    ) -> Result<(Self, TrainSummary)> {
        let special: Vec<(String, u32)> = options.special_tokens.iter().cloned().zip(0..).collect();
        let matcher = SpecialTokens::new(special.clone())?;
        let source = Source { files, special: &matcher, kind: options.kind, threads: options.threads, read };
        let (parts, summary) = match options.kind {
            Kind::Chars => {
                let (sets, summary) = source.read_all(
                    progress,
                    || vec![false; CODE_POINTS],
                    |seen, text| mark_characters(seen, text),
                )?;
                (char_parts(&sets, special), summary)
            }
            Kind::Bpe => {
                check_sizes(options)?;
                let (counts, summary) = source.read_all(progress, Counts::default, count_pretokens)?;
                (bpe_parts(counts, special, options.vocab_size), summary)
            }
        };
        Ok((Self::from_parts(parts)?, summary))
    }
}

fn check_sizes(options: &TrainOptions) -> Result<()> {
    let least = options.special_tokens.len() + 256;
    if options.vocab_size < least {
        return Err(Error::argument(format!(
            "vocab_size {} is below {least} (256 bytes and {} special tokens); raise it",
            options.vocab_size,
            options.special_tokens.len()
        )));
    }
    match options
        .special_tokens
        .iter()
        .find(|token| BYTE_ORDER.iter().any(|&byte| **token == to_text(&[byte])))
    {
        Some(token) => Err(Error::argument(format!(
            "special token {token:?} is how vocab.json writes a byte; choose a longer one"
        ))),
        None => Ok(()),
    }
}

fn count_pretokens(counts: &mut Counts, text: &str) {
    for pretoken in pretokens(text) {
        if let Some(count) = counts.get_mut(pretoken.as_bytes()) {
            *count += 1;
        } else {
            counts.insert(pretoken.as_bytes().into(), 1);
        }
    }
}

fn mark_characters(seen: &mut [bool], text: &str) {
    for c in text.chars() {
        seen[c as usize] = true;
    }
}

fn char_parts(sets: &[Vec<bool>], special: Vec<(String, u32)>) -> Parts {
    let is_special = |c: char| special.iter().any(|(token, _)| token.chars().eq([c]));
    let seen = |c: &char| sets.iter().any(|set| set[*c as usize]) && !is_special(*c);
    let characters = ('\0'..=char::MAX).filter(seen).map(String::from);
    let tokens = special.iter().map(|(token, _)| token.clone()).chain(characters);
    let tokens = tokens.map(|token| token.into_bytes().into()).collect();
    Parts { kind: Kind::Chars, tokens, merges: Vec::new(), special, odd_texts: Vec::new() }
}

fn bpe_parts(counts: Vec<Counts>, special: Vec<(String, u32)>, vocab_size: usize) -> Parts {
    let mut counts = counts.into_iter();
    let mut all = counts.next().unwrap_or_default();
    for (pretoken, count) in counts.flatten() {
        *all.entry(pretoken).or_insert(0) += count;
    }
    let mut tokens: Vec<Box<[u8]>> = special.iter().map(|(token, _)| token.as_bytes().into()).collect();
    let first_byte = tokens.len() as u32;
    tokens.extend(BYTE_ORDER.iter().map(|&byte| Box::from([byte])));
    let reserved = special.iter().map(|(token, _)| token.clone()).collect();
    let mut learner = MergeLearner::new(tokens, first_byte, reserved, all);
    while learner.vocab_size() < vocab_size && learner.merge_next() {}
    let (tokens, merges) = learner.into_parts();
    Parts { kind: Kind::Bpe, tokens, merges, special, odd_texts: Vec::new() }
}

/// Files read as blocks of text.
struct Source<'a> {
    files: &'a [PathBuf],
    special: &'a SpecialTokens,
    kind: Kind,
    threads: usize,
    read: usize,
}

impl Source<'_> {
    /// Gives every part of the text that is not a special token to `work`, on several threads, each with a state of its own.
    fn read_all<S: Send>(
        &self,
        progress: &mut Progress,
        new_state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &str) + Sync,
    ) -> Result<(Vec<S>, TrainSummary)> {
        let take = |state: &mut S, block: &str| {
            for segment in self.special.segments(block) {
                if let Segment::Text(part) = segment {
                    work(state, part);
                }
            }
        };
        if self.threads <= 1 {
            let mut state = new_state();
            let summary = self.send_blocks(progress, &mut |block| take(&mut state, &block))?;
            return Ok((vec![state], summary));
        }
        let (sender, receiver) = sync_channel::<String>(self.threads * 2);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            let serve = || {
                let mut state = new_state();
                while let Some(block) = next_block(&receiver) {
                    take(&mut state, &block);
                }
                state
            };
            let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(serve)).collect();
            let summary = self.send_to(progress, sender);
            let states = workers.into_iter().map(|worker| {
                worker.join().map_err(|_| Error::Internal("a thread that counts text failed".to_owned()))
            });
            let states = states.collect::<Result<Vec<S>>>();
            Ok((states?, summary?))
        })
    }

    /// Sends every block to the workers; they end when the sender is dropped here.
    fn send_to(&self, progress: &mut Progress, sender: SyncSender<String>) -> Result<TrainSummary> {
        // A send fails only when every worker has failed, which joining them reports.
        let summary = self.send_blocks(progress, &mut |block| drop(sender.send(block)));
        drop(sender);
        summary
    }

    fn send_blocks(&self, progress: &mut Progress, send: &mut dyn FnMut(String)) -> Result<TrainSummary> {
        let total = self.total_bytes()?;
        let mut summary = TrainSummary::default();
        let mut buffer = vec![0; self.read];
        for path in self.files {
            let cannot_read = |error| Error::io("cannot read", path, error);
            let mut file = File::open(path).map_err(cannot_read)?;
            let mut cutter = BlockCutter::new(self.kind, 0);
            loop {
                let count = match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(cannot_read(error)),
                };
                summary.bytes += count as u64;
                if let Some(block) = cutter.push(&buffer[..count], self.special) {
                    send(block);
                }
                progress(summary.bytes, total.max(summary.bytes))?;
            }
            send(cutter.finish());
            summary.replaced_bytes += cutter.replaced_bytes();
        }
        match self.files.first() {
            Some(path) if summary.bytes == 0 => Err(Error::EmptyCorpus { path: path.clone() }),
            None => Err(Error::argument("no file to train on; give one or more")),
            _ => Ok(summary),
        }
    }

    /// Bytes of all files; every one must be there before work begins.
    fn total_bytes(&self) -> Result<u64> {
        let size = |path: &PathBuf| match std::fs::metadata(path) {
            Ok(status) if status.is_dir() => {
                Err(Error::argument(format!("{} is a folder; give text files", path.display())))
            }
            Ok(status) => Ok(status.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: "corpus", path: path.clone() })
            }
            Err(error) => Err(Error::io("cannot read", path, error)),
        };
        self.files.iter().map(size).sum()
    }
}

fn next_block(receiver: &Mutex<Receiver<String>>) -> Option<String> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::silent;

    #[test]
    fn the_size_of_reads_changes_nothing() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/tokenizer/tinystories_sample.txt");
        let special_tokens = vec!["<|endoftext|>".to_owned(), "\n\n".to_owned()];
        for kind in [Kind::Bpe, Kind::Chars] {
            let train = |read, threads| {
                let options =
                    TrainOptions { vocab_size: 400, special_tokens: special_tokens.clone(), kind, threads };
                let files = [corpus.clone(), corpus.clone()];
                let (tokenizer, summary) =
                    Tokenizer::train_with_reads_of(read, &files, &options, &mut silent).unwrap();
                (tokenizer.hash(), summary)
            };
            let expected = train(READ, 1);
            for (read, threads) in [(1, 1), (2, 2), (7, 1), (64, 5), (1000, 2)] {
                assert_eq!(train(read, threads), expected, "reads of {read}, {threads} threads");
            }
        }
    }
}
