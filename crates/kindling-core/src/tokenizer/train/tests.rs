use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::corpus::{Format, TEXT_FIELD};
use crate::progress::silent;
use crate::test_support::Folder;
use crate::tokenizer::{END_OF_TEXT, files};

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

fn hash_after_training(
    block: usize,
    corpus: &Corpus,
    options: &TrainOptions,
) -> Result<(String, ReadSummary)> {
    let trained = train_in_blocks(block, corpus, options, &mut silent, &mut silent);
    trained.map(|(parts, summary)| (files::hash(&parts), summary))
}

/// Returns lines of JSON, one per document, with the text in `text_field`.
fn json_lines(documents: &[&str], text_field: &str) -> String {
    let line = |text: &&str| format!("{{\"id\":1,\"{text_field}\":{}}}\n", serde_json::json!(text));
    documents.iter().map(line).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_size_of_blocks_does_not_change_the_result() {
    let folder = Folder::new();
    let story = std::fs::read_to_string(fixture("tokenizer/tinystories_sample.txt")).unwrap();
    let lines =
        folder.file("lines.jsonl", json_lines(&story.split('\n').collect::<Vec<_>>(), "text"));
    let files = [fixture("tokenizer/tinystories_sample.txt"), lines];
    let corpus = Corpus::find(&files, None, TEXT_FIELD).unwrap();
    for kind in [Kind::Bpe, Kind::Chars] {
        let expected = hash_after_training(BLOCK_SIZE, &corpus, &options(kind, 1)).unwrap();
        for (read, threads) in [(1, 1), (2, 2), (7, 1), (64, 5), (1000, 2)] {
            let found = hash_after_training(read, &corpus, &options(kind, threads)).unwrap();
            assert_eq!(found, expected, "reads of {read}, {threads} threads");
        }
    }
}

#[test]
fn compressed_files_train_the_same_tokenizer_as_their_text() {
    let trained = |name: &str| {
        let corpus = Corpus::find(&[fixture("compressed").join(name)], None, TEXT_FIELD).unwrap();
        hash_after_training(BLOCK_SIZE, &corpus, &options(Kind::Bpe, 2)).unwrap()
    };
    let plain = trained("lines.txt");
    assert_eq!(plain.1.bytes, 100_227);
    assert_eq!(trained("lines.txt.gz"), plain);
    assert_eq!(trained("lines.txt.zst"), plain);
}

#[test]
fn json_lines_train_the_same_tokenizer_as_files_of_their_texts() {
    let folder = Folder::new();
    let documents = ["the whale the wh", "ale the sea\n\n\"sea\"", "", "caf\u{e9} \u{1f40b} the"];
    let files: Vec<_> = documents
        .iter()
        .enumerate()
        .map(|(i, text)| folder.file(&format!("{i}.txt"), text))
        .collect();
    let expected = Corpus::find(&files, None, TEXT_FIELD).unwrap();
    let expected = hash_after_training(BLOCK_SIZE, &expected, &options(Kind::Bpe, 1)).unwrap();
    let lines = json_lines(&documents, "body");
    for (name, bytes, format) in [
        ("a.jsonl", lines.clone().into_bytes(), None),
        ("b.ndjson.gz", gzip(lines.as_bytes()), None),
        ("c.txt", lines.replace('\n', "\r\n\n").into_bytes(), Some(Format::Jsonl)),
    ] {
        let corpus = Corpus::find(&[folder.file(name, bytes)], format, "body").unwrap();
        let (hash, _) = hash_after_training(BLOCK_SIZE, &corpus, &options(Kind::Bpe, 2)).unwrap();
        assert_eq!(hash, expected.0, "{name}");
    }
    // Unpaired surrogates become U+FFFD and are counted like invalid UTF-8.
    let file = folder.file("d.jsonl", "{\"text\":\"a\\ud800b\"}");
    let corpus = Corpus::find(&[file], None, TEXT_FIELD).unwrap();
    assert_eq!(
        hash_after_training(BLOCK_SIZE, &corpus, &options(Kind::Bpe, 1)).unwrap().1.replaced_bytes,
        3
    );
}

#[test]
fn errors_name_the_line_without_text_and_a_corpus_without_text() {
    let folder = Folder::new();
    let code = |content: &str, said: &str| {
        let corpus = Corpus::find(&[folder.file("a.jsonl", content)], None, TEXT_FIELD).unwrap();
        for (block, threads) in [(1, 1), (BLOCK_SIZE, 3)] {
            let error =
                hash_after_training(block, &corpus, &options(Kind::Bpe, threads)).unwrap_err();
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
        "a.jsonl, line 102: the object has no field \"text\"",
    );
    code(&format!("{good}the whale"), "line 101: expected");
    code("\n \n{\"text\":\"\"}\n", "no text");
}

#[test]
fn a_word_or_line_that_never_ends_is_an_error_in_bounded_memory() {
    let folder = Folder::new();
    let pieces = vec![vec![b'a'; 80 << 20], [vec![b'0'; 10 << 20], vec![b' '; 70 << 20]].concat()];
    for (number, bytes) in pieces.into_iter().enumerate() {
        let word = folder.file("word.txt.gz", gzip(&bytes));
        let line = folder.file("line.jsonl.gz", gzip(&bytes));
        for (path, what) in [(word, "a word"), (line, "a line")] {
            let corpus = Corpus::find(std::slice::from_ref(&path), None, TEXT_FIELD).unwrap();
            let trained = train(&corpus, &options(Kind::Bpe, 2), &mut silent, &mut silent);
            let error = trained.unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_CORPUS", "{number} {what}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

#[test]
fn max_bytes_trains_the_same_tokenizer_as_a_file_truncated_there() {
    let folder = Folder::new();
    let text = std::fs::read_to_string(fixture("tokenizer/tinystories_sample.txt")).unwrap();
    // The limit drops a word or line that it would split, and what may start a special token.
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
        let expected = hash_after_training(BLOCK_SIZE, &part, &options(Kind::Bpe, 1)).unwrap().0;
        let whole = find(folder.file(name, content));
        for (block, threads) in [(1, 1), (64, 3), (BLOCK_SIZE, 1), (BLOCK_SIZE, 2)] {
            let limited = TrainOptions { max_bytes: Some(2_000), ..options(Kind::Bpe, threads) };
            let (hash, summary) = hash_after_training(block, &whole, &limited).unwrap();
            assert_eq!(
                (hash, summary.bytes),
                (expected.clone(), 2_000),
                "{name}, {threads} threads"
            );
        }
    }
}

#[test]
fn learning_ends_where_pairs_are_rarer_than_min_frequency() {
    let text = "ab ".repeat(9) + &"cd ".repeat(5) + &"ef ".repeat(2) + "gh";
    let folder = Folder::new();
    let corpus = Corpus::find(&[folder.file("a.txt", text)], None, TEXT_FIELD).unwrap();
    let merges = |min_frequency, threads| {
        let options = TrainOptions { min_frequency, ..options(Kind::Bpe, threads) };
        train(&corpus, &options, &mut silent, &mut silent).unwrap().0.merges.len()
    };
    // The first word has no space before it: " ab" occurs 8 times, "ab" once more.
    for (least, expected) in [(1, 8), (2, 6), (3, 4), (5, 4), (6, 2), (9, 1), (10, 0)] {
        for threads in [1, 3] {
            assert_eq!(merges(least, threads), expected, "at least {least}");
        }
    }
}

#[test]
fn limits_of_zero_are_rejected() {
    let corpus = Corpus::find(&[fixture("tokenizer/address.txt")], None, TEXT_FIELD).unwrap();
    for limits in [
        TrainOptions { min_frequency: 0, ..options(Kind::Bpe, 1) },
        TrainOptions { max_bytes: Some(0), ..options(Kind::Bpe, 1) },
    ] {
        assert_eq!(
            hash_after_training(BLOCK_SIZE, &corpus, &limits).unwrap_err().code(),
            "ERR_INVALID_ARGUMENT"
        );
    }
}
