//! Learning a tokenizer from text: count the pre-tokens and learn merges, or collect the
//! characters.
//!
//! | file | holds |
//! |---|---|
//! | `counts.rs` | how often each pre-token occurs |
//! | `merge_learner.rs` | learns merges, each of the most frequent pair |
//! | `pair_table.rs` | pairs with their counts and the words they occur in |
//!
//! Only the blocks being read and the distinct pre-tokens are in memory, never the whole text. The
//! result depends on the text alone, not on the number of threads or the size of blocks.

mod counts;
mod merge_learner;
mod pair_table;
#[cfg(test)]
mod tests;

use self::counts::Counts;
use self::merge_learner::MergeLearner;
use super::cuts::Cuts;
use super::files::byte_chars::{BYTE_ORDER, to_text};
use super::parts::{Kind, Parts, Rules};
use super::pretokenize::Pattern;
use super::special::{Segment, SpecialTokens};
use crate::corpus::blocks::BLOCK_SIZE;
use crate::corpus::parallel::ParallelReader;
use crate::corpus::{Corpus, ReadSummary};
use crate::progress::{Progress, SendProgress};
use crate::{Error, Result};

/// Number of code points.
const CODE_POINTS: usize = 0x11_0000;
/// Merges learned between two calls of `merging`.
const MERGES_PER_REPORT: usize = 256;

/// Options for training a tokenizer.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Size of the vocabulary: special tokens + 256 bytes + merges. The result is smaller if the
    /// text runs out of pairs. Unused by `Kind::Chars`.
    pub vocab_size: usize,
    /// Special tokens. They get the first ids, in this order.
    pub special_tokens: Vec<String>,
    pub kind: Kind,
    /// Splits text into pre-tokens. Unused by `Kind::Chars`.
    pub pattern: Pattern,
    /// Number of threads; does not change the result.
    pub threads: usize,
    /// Pairs that occur less often are not merged.
    pub min_frequency: u64,
    /// Maximum number of bytes to read after decompression, over all files in their order.
    pub max_bytes: Option<u64>,
}

/// Trains on the text of `corpus`; see `Tokenizer::train_on`.
pub fn train(
    corpus: &Corpus,
    options: &TrainOptions,
    reading: &mut SendProgress<'_>,
    merging: &mut Progress<'_>,
) -> Result<(Parts, ReadSummary)> {
    train_in_blocks(BLOCK_SIZE, corpus, options, reading, merging)
}

/// Like `train`, but reads about `block_size` bytes at a time.
fn train_in_blocks(
    block_size: usize,
    corpus: &Corpus,
    options: &TrainOptions,
    reading: &mut SendProgress<'_>,
    merging: &mut Progress<'_>,
) -> Result<(Parts, ReadSummary)> {
    check_limits(options)?;
    let special: Vec<(String, u32)> = options.special_tokens.iter().cloned().zip(0..).collect();
    let matcher = SpecialTokens::new(special.clone())?;
    let max_bytes = options.max_bytes.unwrap_or(u64::MAX);
    let (kind, threads) = (options.kind, options.threads);
    let cuts = Cuts { kind, pattern: &options.pattern, special: &matcher, nfc: false };
    let text_cut = &|bytes: &[u8]| cuts.last_in_bytes(bytes, true);
    let longest = cuts.longest();
    let reader = ParallelReader { corpus, text_cut, threads, block_size, longest, max_bytes };
    match kind {
        Kind::Chars => {
            let new = || vec![false; CODE_POINTS];
            let mark = |seen: &mut Vec<bool>, text: &str| {
                mark_characters(seen, text);
                Ok(())
            };
            let (seen, summary) = reader.read_all(reading, new, on_segments(&matcher, mark))?;
            Ok((char_parts(&seen, special), summary))
        }
        Kind::Bpe => {
            check_vocab_size(options)?;
            let new = || Counts::new(options.pattern.clone());
            let count = on_segments(&matcher, Counts::count_text);
            let (counts, summary) = reader.read_all(reading, new, count)?;
            Ok((bpe_parts(counts, special, options, merging)?, summary))
        }
    }
}

/// Returns a function that runs `work` on each segment of a text between special tokens.
fn on_segments<S>(
    special: &SpecialTokens,
    work: impl Fn(&mut S, &str) -> Result<()> + Sync,
) -> impl Fn(&mut S, &str) -> Result<()> + Sync {
    move |state, text| {
        for segment in special.segments(text) {
            if let Segment::Text(part) = segment {
                work(state, part)?;
            }
        }
        Ok(())
    }
}

fn check_limits(options: &TrainOptions) -> Result<()> {
    if options.min_frequency == 0 || options.max_bytes == Some(0) {
        return Err(Error::argument("min_frequency and max_bytes must be at least 1"));
    }
    Ok(())
}

fn check_vocab_size(options: &TrainOptions) -> Result<()> {
    let smallest = options.special_tokens.len() + 256;
    if options.vocab_size < smallest {
        return Err(Error::argument(format!(
            "vocab_size {} is too small for 256 bytes and {} special tokens; pass at least \
             {smallest}",
            options.vocab_size,
            options.special_tokens.len()
        )));
    }
    let is_byte = |token: &&String| BYTE_ORDER.iter().any(|&byte| **token == to_text(&[byte]));
    match options.special_tokens.iter().find(is_byte) {
        Some(token) => Err(Error::argument(format!(
            "special token {token:?} is how vocab.json writes a byte; choose a longer one"
        ))),
        None => Ok(()),
    }
}

fn mark_characters(seen: &mut [bool], text: &str) {
    for c in text.chars() {
        seen[c as usize] = true;
    }
}

/// Builds a tokenizer of characters: special tokens, then the characters that any thread has
/// `seen`, by code point.
fn char_parts(seen: &[Vec<bool>], special: Vec<(String, u32)>) -> Parts {
    let is_special = |c: char| special.iter().any(|(token, _)| token.chars().eq([c]));
    let is_seen = |c: &char| seen.iter().any(|seen| seen[*c as usize]) && !is_special(*c);
    let characters = ('\0'..=char::MAX).filter(is_seen).map(String::from);
    let tokens = special.iter().map(|(token, _)| token.clone()).chain(characters);
    let tokens = tokens.map(|token| token.into_bytes().into()).collect();
    let pattern = Pattern::Gpt2;
    let (merges, raw_texts, rules) = (Vec::new(), Vec::new(), Rules::default());
    Parts { kind: Kind::Chars, pattern, tokens, merges, special, raw_texts, rules }
}

/// Builds a BPE tokenizer from the counts of each thread.
fn bpe_parts(
    counts: Vec<Counts>,
    special: Vec<(String, u32)>,
    options: &TrainOptions,
    merging: &mut Progress<'_>,
) -> Result<Parts> {
    let mut counts = counts.into_iter();
    let mut all = counts.next().unwrap_or_else(|| Counts::new(options.pattern.clone()));
    counts.for_each(|other| all.add_all(other));
    let mut tokens: Vec<Box<[u8]>> =
        special.iter().map(|(token, _)| token.as_bytes().into()).collect();
    let first_byte = tokens.len() as u32;
    tokens.extend(BYTE_ORDER.iter().map(|&byte| Box::from([byte])));
    let reserved = special.iter().map(|(token, _)| token.clone()).collect();
    let mut learner = MergeLearner::new(tokens, first_byte, reserved, &all);
    drop(all);
    let first = learner.vocab_size();
    let total = (options.vocab_size - first) as u64;
    let mut until_report = 0;
    while learner.vocab_size() < options.vocab_size && learner.merge_next(options.min_frequency) {
        if until_report == 0 {
            merging((learner.vocab_size() - first) as u64, total)?;
            until_report = MERGES_PER_REPORT;
        }
        until_report -= 1;
    }
    let (tokens, merges) = learner.into_parts();
    let pattern = options.pattern.clone();
    let (raw_texts, rules) = (Vec::new(), Rules::default());
    Ok(Parts { kind: Kind::Bpe, pattern, tokens, merges, special, raw_texts, rules })
}
