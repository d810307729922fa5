//! Reads files written by pyarrow, intact and damaged. `scripts/fixtures/parquet.py` makes them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::ParquetReader;
use crate::corpus::{Corpus, sample_documents};
use crate::data::encode::{EncodeOptions, encode_files};
use crate::data::token_store::TokenStore;
use crate::progress::silent;
use crate::random::{Purpose, below};
use crate::test_support::Folder;
use crate::tokenizer::{Kind, Pattern, Tokenizer, TrainOptions};

#[derive(Deserialize)]
struct Fixture {
    lists: Vec<Vec<String>>,
    files: BTreeMap<String, usize>,
}

fn fixture() -> Fixture {
    serde_json::from_slice(&std::fs::read(folder().join("texts.json")).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet")
}

fn column_of(name: &str) -> &'static str {
    if name == "nested" { "page.body" } else { "text" }
}

/// Returns the texts of a file, or the error's message.
fn texts(path: &Path, column: &str) -> Result<Vec<String>, String> {
    let mut reader = ParquetReader::open(path.to_path_buf(), column, Arc::default())
        .map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    reader.read_to_end(&mut lines).map_err(|error| error.to_string())?;
    let lines = String::from_utf8_lossy(&lines).into_owned();
    let text = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap();
        object[column].as_str().unwrap().to_owned()
    };
    Ok(lines.lines().map(text).collect())
}

#[test]
fn texts_are_those_of_pyarrow_in_every_encoding() {
    let Fixture { lists, files } = fixture();
    assert_eq!(files.len(), 15);
    for (name, list) in files {
        let path = folder().join(format!("{name}.parquet"));
        assert!(texts(&path, column_of(&name)).unwrap() == lists[list], "{name}");
    }
}

#[test]
fn columns_and_codecs_that_cannot_be_read_are_named() {
    for (name, column, says) in [
        ("nulls", "body", "no column \"body\" (columns: id, text)"),
        ("nulls", "id", "\"id\" does not hold text"),
        ("nested", "page.words.list.element", "is a list"),
        ("lz4", "text", "compressed with LZ4"),
    ] {
        let error = texts(&folder().join(format!("{name}.parquet")), column).unwrap_err();
        assert!(error.contains(says) && error.contains(name), "{error}");
    }
    let error = texts(&folder().join("texts.json"), "text").unwrap_err();
    assert!(error.contains("not in Parquet format"), "{error}");
}

#[test]
fn damaged_files_are_errors_or_other_texts_and_never_panic() {
    let scratch = Folder::new();
    let mut failed = 0;
    for (number, name) in fixture().files.keys().enumerate() {
        let bytes = std::fs::read(folder().join(format!("{name}.parquet"))).unwrap();
        for seed in 0..150u64 {
            let draw = |i: u64, bound: usize| {
                below(seed + 1000 * number as u64, Purpose::Benchmark, i, 0, bound as u64) as usize
            };
            let mut damaged = bytes.clone();
            for i in 0..=draw(0, 4) as u64 {
                let at = draw(1 + 2 * i, damaged.len() - 12) + 4;
                damaged[at] = [0, 0xFF, 0x7F, 0x80, draw(2 + 2 * i, 256) as u8][draw(20 + i, 5)];
            }
            // Half of them lose some bytes before the footer.
            if seed % 2 == 0 {
                let at = 4 + draw(30, damaged.len() - 12);
                let length = 1 + draw(31, 100).min(damaged.len() - 8 - at);
                damaged.drain(at..(at + length).min(bytes.len() - 8));
            }
            let path = scratch.file("x.parquet", &damaged);
            failed += u32::from(texts(&path, column_of(name)).is_err());
        }
        for length in [0, 3, 4, 11, 12, bytes.len() / 2, bytes.len() - 1] {
            let path = scratch.file("x.parquet", &bytes[..length]);
            assert!(texts(&path, column_of(name)).is_err(), "{name} {length}");
        }
    }
    assert!(failed > 500, "{failed}");
}

fn tokenizer() -> Arc<Tokenizer> {
    let scratch = Folder::new();
    let options = TrainOptions {
        vocab_size: 258,
        special_tokens: vec!["<|endoftext|>".to_owned()],
        kind: Kind::Bpe,
        pattern: Pattern::Gpt2,
        threads: 1,
        min_frequency: 1,
        max_bytes: None,
    };
    let file = scratch.file("a.txt", "the sea");
    Arc::new(Tokenizer::train(&[file], &options, &mut silent).unwrap().0)
}

/// Encodes a file with a token after each document, and returns the ids.
fn encoded(file: &Path, tokenizer: &Arc<Tokenizer>, options: &EncodeOptions) -> Vec<i32> {
    let scratch = Folder::new();
    let out = scratch.path().join("x_chunks");
    encode_files(&[file.to_path_buf()], tokenizer, &out, options, &mut silent).unwrap();
    let store = TokenStore::open(&out).unwrap();
    store.load_by_range(0, store.len()).unwrap()
}

#[test]
fn parquet_encodes_as_json_lines_of_its_texts() {
    let (scratch, tokenizer) = (Folder::new(), tokenizer());
    let Fixture { lists, files } = fixture();
    for name in ["dictionary-snappy", "nested", "empty-groups"] {
        let mut lines = Vec::new();
        for text in &lists[files[name]] {
            writeln!(lines, "{}", serde_json::json!({ column_of(name): text })).unwrap();
        }
        let lines = scratch.file("a.jsonl", lines);
        let parquet = folder().join(format!("{name}.parquet"));
        for threads in [1, 3] {
            let text_field = column_of(name).to_owned();
            let options =
                EncodeOptions { text_field, append_eot: true, threads, ..EncodeOptions::default() };
            let ids = encoded(&parquet, &tokenizer, &options);
            assert!(ids == encoded(&lines, &tokenizer, &options), "{name}");
            let documents = lists[files[name]].iter().filter(|text| !text.is_empty()).count();
            assert_eq!(ids.iter().filter(|&&id| id == 0).count(), documents, "{name}");
        }
        let sampled = |path: &Path| {
            let corpus = Corpus::find(&[path.to_path_buf()], None, column_of(name)).unwrap();
            sample_documents(&corpus, "<|endoftext|>", 4, 1, &mut silent).unwrap()
        };
        assert_eq!(sampled(&parquet), sampled(&lines));
    }
}

#[test]
fn standard_input_cannot_be_parquet() {
    let format = Some(crate::corpus::Format::Parquet);
    let error = Corpus::find(&[PathBuf::from("-")], format, "text").unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
}
