//! Learning a tokenizer from files: count pre-tokens (or characters) over blocks of text, then merge.
//!
//! Memory holds the blocks at work and the distinct pre-tokens, never the text. The result depends on the text alone, not on
//! threads or blocks.

use std::path::PathBuf;

use super::blocks::Cuts;
use super::byte_chars::{BYTE_ORDER, to_text};
use super::counts::Counts;
use super::merge_learner::MergeLearner;
use super::parts::Parts;
use super::pattern::Pattern;
use super::source::{BLOCK, ReadSummary, Source};
use super::special::{Segment, SpecialTokens};
use super::{Kind, Tokenizer};
use crate::progress::Progress;
use crate::{Error, Result};

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
    /// Cuts text into pre-tokens. Not used by `Kind::Chars`.
    pub pattern: Pattern,
    /// Threads that work on it; the result does not depend on it.
    pub threads: usize,
    /// Merges are learned from pairs that occur at least so often.
    pub min_frequency: u64,
    /// Bytes to be read at most, of all files in their order.
    pub max_bytes: Option<u64>,
}

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
    ) -> Result<(Self, ReadSummary)> {
        Self::train_with_blocks_of(BLOCK, files, options, progress)
    }

    /// `train`, reading `block` bytes at a time.
    pub(super) fn train_with_blocks_of(
        block: usize,
        files: &[PathBuf],
        options: &TrainOptions,
        progress: &mut Progress,
    ) -> Result<(Self, ReadSummary)> {
        let special: Vec<(String, u32)> = options.special_tokens.iter().cloned().zip(0..).collect();
        let matcher = SpecialTokens::new(special.clone())?;
        let max_bytes = options.max_bytes.unwrap_or(u64::MAX);
        let (kind, threads) = (options.kind, options.threads);
        let cuts = Cuts { kind, pattern: &options.pattern, special: &matcher };
        let source = Source { files, cuts, threads, block, max_bytes };
        let (parts, summary) = match kind {
            Kind::Chars => {
                let new = || vec![false; CODE_POINTS];
                let mark = |seen: &mut Vec<bool>, text: &str| {
                    mark_characters(seen, text);
                    Ok(())
                };
                let (sets, summary) = source.read_all(progress, new, in_each_part(&matcher, mark))?;
                (char_parts(&sets, special), summary)
            }
            Kind::Bpe => {
                check_sizes(options)?;
                let (counts, summary) = source.read_all(
                    progress,
                    || Counts::new(options.pattern.clone()),
                    in_each_part(&matcher, Counts::count_text),
                )?;
                (
                    bpe_parts(counts, special, options, &mut || progress(summary.bytes, summary.bytes))?,
                    summary,
                )
            }
        };
        Ok((Self::from_parts(parts)?, summary))
    }
}

/// `work` on every part of a text that is not a special token.
fn in_each_part<S>(
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
    let pattern = Pattern::Gpt2;
    Parts { kind: Kind::Chars, pattern, tokens, merges: Vec::new(), special, odd_texts: Vec::new() }
}

/// Merges learned between two questions whether to go on.
const MERGES_AT_A_TIME: usize = 256;

fn bpe_parts(
    counts: Vec<Counts>,
    special: Vec<(String, u32)>,
    options: &TrainOptions,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<Parts> {
    let mut counts = counts.into_iter();
    let mut all = counts.next().unwrap_or_else(|| Counts::new(options.pattern.clone()));
    counts.for_each(|other| all.add_all(other));
    let mut tokens: Vec<Box<[u8]>> = special.iter().map(|(token, _)| token.as_bytes().into()).collect();
    let first_byte = tokens.len() as u32;
    tokens.extend(BYTE_ORDER.iter().map(|&byte| Box::from([byte])));
    let reserved = special.iter().map(|(token, _)| token.clone()).collect();
    let mut learner = MergeLearner::new(tokens, first_byte, reserved, &all);
    drop(all);
    let mut left = 0;
    while learner.vocab_size() < options.vocab_size && learner.merge_next(options.min_frequency) {
        if left == 0 {
            go_on()?;
            left = MERGES_AT_A_TIME;
        }
        left -= 1;
    }
    let (tokens, merges) = learner.into_parts();
    let pattern = options.pattern.clone();
    Ok(Parts { kind: Kind::Bpe, pattern, tokens, merges, special, odd_texts: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::silent;

    #[test]
    fn the_size_of_blocks_changes_nothing() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/tokenizer/tinystories_sample.txt");
        let special_tokens = vec!["<|endoftext|>".to_owned(), "\n\n".to_owned()];
        for kind in [Kind::Bpe, Kind::Chars] {
            let train = |read, threads| {
                let options = TrainOptions {
                    vocab_size: 400,
                    special_tokens: special_tokens.clone(),
                    kind,
                    pattern: Pattern::Gpt2,
                    threads,
                    min_frequency: 1,
                    max_bytes: None,
                };
                let files = [corpus.clone(), corpus.clone()];
                let (tokenizer, summary) =
                    Tokenizer::train_with_blocks_of(read, &files, &options, &mut silent).unwrap();
                (tokenizer.hash(), summary)
            };
            let expected = train(BLOCK, 1);
            for (read, threads) in [(1, 1), (2, 2), (7, 1), (64, 5), (1000, 2)] {
                assert_eq!(train(read, threads), expected, "reads of {read}, {threads} threads");
            }
        }
    }
}
