//! Learning a tokenizer from files: count pre-tokens (or characters) over blocks of text, then merge.
//!
//! Memory holds the blocks at work and the distinct pre-tokens, never the text. The result depends on the text alone, not on
//! threads or blocks.

use std::path::PathBuf;

mod counts;
mod merge_learner;
mod pair_table;

use self::counts::Counts;
use self::merge_learner::MergeLearner;
use super::cuts::Cuts;
use super::files::byte_chars::{BYTE_ORDER, to_text};
use super::parts::Parts;
use super::pretokenize::Pattern;
use super::special::{Segment, SpecialTokens};
use super::{Kind, Tokenizer};
use crate::corpus::blocks::BLOCK_SIZE;
use crate::corpus::parallel::ParallelReader;
use crate::corpus::{Corpus, ReadSummary, TEXT_FIELD};
use crate::progress::{Progress, SendProgress, silent};
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
    /// Bytes to be read at most, of all files in their order, decompressed.
    pub max_bytes: Option<u64>,
}

impl Tokenizer {
    /// Learns a tokenizer from `files`, told by their names to be text or JSON Lines; see `train_on`.
    ///
    /// # Errors
    /// As `Corpus::find` and `train_on`.
    pub fn train(
        files: &[PathBuf],
        options: &TrainOptions,
        reading: &mut SendProgress<'_>,
    ) -> Result<(Self, ReadSummary)> {
        Self::train_on(&Corpus::find(files, None, TEXT_FIELD)?, options, reading, &mut silent)
    }

    /// Learns a tokenizer from the text of `corpus`. No pre-token goes from one file or line of JSON into the next. `reading`
    /// is told of bytes as they are on the disk, `merging` then of merges.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_INVALID_CORPUS`, `ERR_EMPTY_CORPUS` where no file has any text, `ERR_INVALID_ARGUMENT` for a
    /// `vocab_size` that special tokens and bytes do not fit in or for special tokens that are empty, repeated or written as a
    /// byte is, the system's errors, and what `reading` and `merging` return.
    pub fn train_on(
        corpus: &Corpus,
        options: &TrainOptions,
        reading: &mut SendProgress<'_>,
        merging: &mut Progress<'_>,
    ) -> Result<(Self, ReadSummary)> {
        Self::train_with_blocks_of(BLOCK_SIZE, corpus, options, reading, merging)
    }

    /// `train_on`, reading `block` bytes at a time.
    pub(super) fn train_with_blocks_of(
        block: usize,
        corpus: &Corpus,
        options: &TrainOptions,
        reading: &mut SendProgress<'_>,
        merging: &mut Progress<'_>,
    ) -> Result<(Self, ReadSummary)> {
        check_limits(options)?;
        let special: Vec<(String, u32)> = options.special_tokens.iter().cloned().zip(0..).collect();
        let matcher = SpecialTokens::new(special.clone())?;
        let max_bytes = options.max_bytes.unwrap_or(u64::MAX);
        let (kind, threads) = (options.kind, options.threads);
        let cuts = Cuts { kind, pattern: &options.pattern, special: &matcher };
        let text_cut = &|bytes: &[u8]| cuts.last_in_bytes(bytes, true);
        let reader = ParallelReader { corpus, text_cut, threads, block_size: block, max_bytes };
        let (parts, summary) = match kind {
            Kind::Chars => {
                let new = || vec![false; CODE_POINTS];
                let mark = |seen: &mut Vec<bool>, text: &str| {
                    mark_characters(seen, text);
                    Ok(())
                };
                let (sets, summary) =
                    reader.read_all(reading, new, in_each_part(&matcher, mark))?;
                (char_parts(&sets, special), summary)
            }
            Kind::Bpe => {
                check_sizes(options)?;
                let (counts, summary) = reader.read_all(
                    reading,
                    || Counts::new(options.pattern.clone()),
                    in_each_part(&matcher, Counts::count_text),
                )?;
                (bpe_parts(counts, special, options, merging)?, summary)
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

fn check_limits(options: &TrainOptions) -> Result<()> {
    if options.min_frequency == 0 || options.max_bytes == Some(0) {
        return Err(Error::argument("min_frequency and max_bytes must be at least 1"));
    }
    Ok(())
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

/// Merges learned between two reports.
const MERGES_AT_A_TIME: usize = 256;

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
    let wanted = (options.vocab_size - first) as u64;
    let mut left = 0;
    while learner.vocab_size() < options.vocab_size && learner.merge_next(options.min_frequency) {
        if left == 0 {
            merging((learner.vocab_size() - first) as u64, wanted)?;
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
    use std::io::Write;
    use std::path::Path;

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::corpus::Format;
    use crate::test_support::Folder;
    use crate::tokenizer::END_OF_TEXT;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    fn options(kind: Kind, threads: usize) -> TrainOptions {
        TrainOptions {
            vocab_size: 400,
            special_tokens: vec![END_OF_TEXT.to_owned(), "\n\n".to_owned()],
            kind,
            pattern: Pattern::Gpt2,
            threads,
            min_frequency: 1,
            max_bytes: None,
        }
    }

    fn train(
        block: usize,
        corpus: &Corpus,
        options: &TrainOptions,
    ) -> Result<(String, ReadSummary)> {
        let trained =
            Tokenizer::train_with_blocks_of(block, corpus, options, &mut silent, &mut silent);
        trained.map(|(tokenizer, summary)| (tokenizer.hash(), summary))
    }

    /// Lines of JSON, each with a document of `text`; `text_field` names its field.
    fn json_lines(documents: &[&str], text_field: &str) -> String {
        let line =
            |text: &&str| format!("{{\"id\":1,\"{text_field}\":{}}}\n", serde_json::json!(text));
        documents.iter().map(line).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_size_of_blocks_changes_nothing() {
        let folder = Folder::new();
        let story = std::fs::read_to_string(fixture("tokenizer/tinystories_sample.txt")).unwrap();
        let lines =
            folder.file("lines.jsonl", json_lines(&story.split('\n').collect::<Vec<_>>(), "text"));
        let files = [fixture("tokenizer/tinystories_sample.txt"), lines];
        let corpus = Corpus::find(&files, None, TEXT_FIELD).unwrap();
        for kind in [Kind::Bpe, Kind::Chars] {
            let expected = train(BLOCK_SIZE, &corpus, &options(kind, 1)).unwrap();
            for (read, threads) in [(1, 1), (2, 2), (7, 1), (64, 5), (1000, 2)] {
                let found = train(read, &corpus, &options(kind, threads)).unwrap();
                assert_eq!(found, expected, "reads of {read}, {threads} threads");
            }
        }
    }

    #[test]
    fn compressed_files_give_what_their_text_gives() {
        let trained = |name: &str| {
            let corpus =
                Corpus::find(&[fixture("compressed").join(name)], None, TEXT_FIELD).unwrap();
            train(BLOCK_SIZE, &corpus, &options(Kind::Bpe, 2)).unwrap()
        };
        let plain = trained("lines.txt");
        assert_eq!(plain.1.bytes, 100_227);
        assert_eq!(trained("lines.txt.gz"), plain);
        assert_eq!(trained("lines.txt.zst"), plain);
    }

    #[test]
    fn json_lines_give_what_their_texts_give_as_files() {
        let folder = Folder::new();
        let documents =
            ["the whale the wh", "ale the sea\n\n\"sea\"", "", "caf\u{e9} \u{1f40b} the"];
        let files: Vec<_> = documents
            .iter()
            .enumerate()
            .map(|(i, text)| folder.file(&format!("{i}.txt"), text))
            .collect();
        let expected = Corpus::find(&files, None, TEXT_FIELD).unwrap();
        let expected = train(BLOCK_SIZE, &expected, &options(Kind::Bpe, 1)).unwrap();
        let lines = json_lines(&documents, "body");
        for (name, bytes, format) in [
            ("a.jsonl", lines.clone().into_bytes(), None),
            ("b.ndjson.gz", gzip(lines.as_bytes()), None),
            ("c.txt", lines.replace('\n', "\r\n\n").into_bytes(), Some(Format::Jsonl)),
        ] {
            let corpus = Corpus::find(&[folder.file(name, bytes)], format, "body").unwrap();
            let (hash, _) = train(BLOCK_SIZE, &corpus, &options(Kind::Bpe, 2)).unwrap();
            assert_eq!(hash, expected.0, "{name}");
        }
        // Halves of surrogate pairs become U+FFFD and are counted, as broken UTF-8 is.
        let file = folder.file("d.jsonl", "{\"text\":\"a\\ud800b\"}");
        let corpus = Corpus::find(&[file], None, TEXT_FIELD).unwrap();
        assert_eq!(train(BLOCK_SIZE, &corpus, &options(Kind::Bpe, 1)).unwrap().1.replaced_bytes, 3);
    }

    #[test]
    fn a_line_without_the_text_is_named_and_lines_without_text_are_no_corpus() {
        let folder = Folder::new();
        let code = |content: &str, said: &str| {
            let corpus =
                Corpus::find(&[folder.file("a.jsonl", content)], None, TEXT_FIELD).unwrap();
            for (block, threads) in [(1, 1), (BLOCK_SIZE, 3)] {
                let error = train(block, &corpus, &options(Kind::Bpe, threads)).unwrap_err();
                assert!(error.to_string().contains(said), "{error}");
                assert_eq!(
                    error.code(),
                    if said == "no text" { "ERR_EMPTY_CORPUS" } else { "ERR_INVALID_CORPUS" }
                );
            }
        };
        let good = "{\"text\":\"the whale\"}\n".repeat(100);
        code(
            &format!("{good}\n{{\"txt\":\"x\"}}\n{good}"),
            "a.jsonl, line 102: has no field \"text\"",
        );
        code(&format!("{good}the whale"), "line 101: expected");
        code("\n \n{\"text\":\"\"}\n", "no text");
    }

    #[test]
    fn a_limit_on_bytes_gives_what_a_file_cut_there_gives() {
        let folder = Folder::new();
        let text = std::fs::read_to_string(fixture("tokenizer/tinystories_sample.txt")).unwrap();
        // Words and lines that the limit would cut belong to neither, nor what may be the beginning of a special token.
        let plain = text[..=2_000 - END_OF_TEXT.len()].rfind(' ').map(|at| &text[..at]).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        let all = json_lines(&lines, "text");
        let whole = all[..2_000].rfind('\n').map(|at| &all[..=at]).unwrap();
        for (name, content, part) in [
            ("a.txt", text.as_bytes().to_vec(), plain),
            ("b.txt.gz", gzip(text.as_bytes()), plain),
            ("c.jsonl", all.as_bytes().to_vec(), whole),
            ("d.jsonl.gz", gzip(all.as_bytes()), whole),
        ] {
            let suffix = if name.contains("jsonl") { "part.jsonl" } else { "part.txt" };
            let find = |file| {
                Corpus::find(&[file, fixture("tokenizer/address.txt")], None, TEXT_FIELD).unwrap()
            };
            let part = Corpus::find(&[folder.file(suffix, part)], None, TEXT_FIELD).unwrap();
            let expected = train(BLOCK_SIZE, &part, &options(Kind::Bpe, 1)).unwrap().0;
            let whole = find(folder.file(name, content));
            for (block, threads) in [(1, 1), (64, 3), (BLOCK_SIZE, 1), (BLOCK_SIZE, 2)] {
                let limited =
                    TrainOptions { max_bytes: Some(2_000), ..options(Kind::Bpe, threads) };
                let (hash, summary) = train(block, &whole, &limited).unwrap();
                assert_eq!(
                    (hash, summary.bytes),
                    (expected.clone(), 2_000),
                    "{name}, {threads} threads"
                );
            }
        }
    }

    #[test]
    fn a_least_frequency_ends_learning_where_pairs_are_rarer() {
        let text = "ab ".repeat(9) + &"cd ".repeat(5) + &"ef ".repeat(2) + "gh";
        let folder = Folder::new();
        let corpus = Corpus::find(&[folder.file("a.txt", text)], None, TEXT_FIELD).unwrap();
        let merges = |min_frequency, threads| {
            let options = TrainOptions { min_frequency, ..options(Kind::Bpe, threads) };
            Tokenizer::train_on(&corpus, &options, &mut silent, &mut silent).unwrap().0.num_merges()
        };
        // The first of a run has no space before it: " ab" stands 8 times, "ab" once more.
        for (least, expected) in [(1, 8), (2, 6), (3, 4), (5, 4), (6, 2), (9, 1), (10, 0)] {
            for threads in [1, 3] {
                assert_eq!(merges(least, threads), expected, "at least {least}");
            }
        }
    }

    #[test]
    fn limits_of_nothing_are_refused() {
        let corpus = Corpus::find(&[fixture("tokenizer/address.txt")], None, TEXT_FIELD).unwrap();
        for limits in [
            TrainOptions { min_frequency: 0, ..options(Kind::Bpe, 1) },
            TrainOptions { max_bytes: Some(0), ..options(Kind::Bpe, 1) },
        ] {
            assert_eq!(
                train(BLOCK_SIZE, &corpus, &limits).unwrap_err().code(),
                "ERR_INVALID_ARGUMENT"
            );
        }
    }
}
