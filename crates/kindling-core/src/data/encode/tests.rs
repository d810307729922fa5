//! Tests that an encoded store holds the ids of the text, and that a failed run leaves nothing
//! behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{EncodeOptions, EncodeSummary, encode_files};
use crate::corpus::{Document, Format};
use crate::data::Element;
use crate::data::TokenStore;
use crate::progress::silent;
use crate::test_support::{Folder, names};
use crate::tokenizer::{END_OF_TEXT, Kind, Pattern, Tokenizer, TrainOptions};
use crate::{Error, Result};

pub(super) fn options() -> EncodeOptions {
    EncodeOptions { chunk_size: 1_000, threads: 2, ..EncodeOptions::default() }
}

/// Returns random words, with characters of one to four bytes.
pub(super) fn text(words: u32) -> String {
    let parts = ["the", " whale", " sea", "\n", "é", " ß€", "鯨", "😀 "];
    (0..words)
        .map(|i| parts[(i.wrapping_mul(2_654_435_761) >> 27) as usize % parts.len()])
        .collect()
}

/// Returns a folder with a text file of this many words, the file, and a tokenizer.
pub(super) fn corpus(words: u32) -> (Folder, PathBuf, Arc<Tokenizer>) {
    let folder = Folder::new();
    let (sample, file) = (folder.path().join("sample.txt"), folder.path().join("text.txt"));
    std::fs::write(&sample, text(500)).unwrap();
    std::fs::write(&file, text(words)).unwrap();
    let options = TrainOptions {
        vocab_size: 280,
        special_tokens: vec![END_OF_TEXT.to_owned()],
        kind: Kind::Bpe,
        threads: 1,
        pattern: Pattern::Gpt2,
        min_frequency: 1,
        max_bytes: None,
    };
    let (tokenizer, _) = Tokenizer::train(&[sample], &options, &mut silent).unwrap();
    (folder, file, Arc::new(tokenizer))
}

pub(super) fn all(path: &Path) -> Vec<u32> {
    let store = TokenStore::open(path).unwrap();
    store.verify(&mut silent).unwrap();
    store.load_by_range(0, store.len()).unwrap().into_iter().map(|id| id as u32).collect()
}

pub(super) fn encode(
    files: &[&Path],
    tokenizer: &Arc<Tokenizer>,
    out: &Path,
    o: &EncodeOptions,
) -> Result<EncodeSummary> {
    let files: Vec<_> = files.iter().map(|file| file.to_path_buf()).collect();
    encode_files(&files, tokenizer, out, o, &mut silent)
}

#[test]
fn a_store_holds_the_ids_of_a_text_of_many_blocks() {
    let (folder, file, tokenizer) = corpus(1_200_000);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.len() > 2 << 21, "the text has several blocks");
    let out = folder.path().join("a/x_chunks");
    let options = EncodeOptions { chunk_size: 100_000, ..options() };
    let summary = encode(&[&file], &tokenizer, &out, &options).unwrap();
    let ids = tokenizer.encode(&text).unwrap();
    assert_eq!(all(&out), ids);
    let expected = EncodeSummary {
        tokens: ids.len() as u64,
        bytes: text.len() as u64,
        replaced_bytes: 0,
        resumed_bytes: 0,
        train: out.clone(),
        valid: None,
    };
    assert_eq!(summary, expected);
    let metadata = TokenStore::open(&out).unwrap().metadata().clone();
    assert_eq!(metadata.bytes, Some(text.len() as u64));
    assert_eq!(metadata.max_id, ids.iter().max().copied());
    assert_eq!(metadata.tokenizer_hash, Some(tokenizer.hash()));
}

#[test]
fn no_token_spans_two_files() {
    let (folder, _, tokenizer) = corpus(10);
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&a, "the whale the wh").unwrap();
    std::fs::write(&b, "ale sea").unwrap();
    let out = folder.path().join("x_chunks");
    encode(&[&a, &b], &tokenizer, &out, &options()).unwrap();
    assert_eq!(
        all(&out),
        [tokenizer.encode("the whale the wh").unwrap(), tokenizer.encode("ale sea").unwrap()]
            .concat()
    );
}

#[test]
fn the_split_is_at_the_floor_of_the_training_share() {
    let (folder, file, tokenizer) = corpus(3_000);
    let ids = tokenizer.encode(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for (fraction, chunk_size) in [(0.1, 1_000), (0.5, 7), (0.999, 100), (1e-9, 1_000)] {
        let out = folder.path().join("data");
        let options = EncodeOptions { chunk_size, valid_fraction: fraction, ..options() };
        let summary = encode(&[&file], &tokenizer, &out, &options).unwrap();
        let kept = (ids.len() as f64 * (1.0 - fraction)).floor() as usize;
        assert_eq!(all(&summary.train), ids[..kept]);
        assert_eq!(all(summary.valid.as_ref().unwrap()), ids[kept..]);
        assert_eq!(names(&out), ["tokenizer", "train_chunks", "valid_chunks"]);
        let metadata = TokenStore::open(&summary.train).unwrap().metadata().clone();
        assert_eq!(metadata.tokenizer_path.as_deref(), Some("../tokenizer"));
        assert_eq!(
            metadata.bytes,
            Some(tokenizer.decode_bytes(&ids[..kept]).unwrap().len() as u64)
        );
        assert_eq!(metadata.max_id, ids[..kept].iter().max().copied());
    }
}

/// Returns a progress callback that cancels at call number `calls`.
pub(super) fn ends_after(mut calls: i32) -> impl FnMut(u64, u64) -> Result<()> + Send {
    move |_, _| {
        calls -= 1;
        if calls < 0 { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[test]
fn cancelling_at_any_moment_leaves_the_destination_unchanged() {
    let (folder, file, tokenizer) = corpus(700_000);
    let files = [file];
    let options = EncodeOptions { valid_fraction: 0.2, chunk_size: 100_000, ..options() };
    let out = folder.path().join("deep/data");
    // First to a new folder, then over an existing store.
    for round in 0..2 {
        let before = (
            names(folder.path()),
            (round > 0).then(|| (names(&out), all(&out.join("train_chunks")))),
        );
        let mut calls = 0;
        loop {
            let mut stop = ends_after(calls);
            match encode_files(&files, &tokenizer, &out, &options, &mut stop) {
                Err(error) => assert_eq!(error.code(), "ERR_CANCELLED"),
                Ok(_) => break,
            }
            let after = (
                names(folder.path()),
                (round > 0).then(|| (names(&out), all(&out.join("train_chunks")))),
            );
            assert_eq!(after, before);
            calls += 1;
        }
        assert!(calls > 3, "it was cancelled while reading and while splitting");
        assert_eq!(names(&out), ["tokenizer", "train_chunks", "valid_chunks"]);
    }
}

#[test]
fn an_identical_tokenizer_is_not_replaced() {
    let (folder, file, tokenizer) = corpus(100);
    let out = folder.path().join("data");
    encode(&[&file], &tokenizer, &out, &options()).unwrap();
    std::fs::write(out.join("tokenizer/notes.txt"), "mine").unwrap();
    encode(&[&file], &tokenizer, &out, &options()).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("tokenizer/notes.txt")).unwrap(), "mine");
}

#[test]
fn a_corpus_without_text_is_an_error() {
    let (folder, file, tokenizer) = corpus(10);
    let empty = folder.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    let before = names(folder.path());
    let out = folder.path().join("out/data");
    let error = encode(&[&empty, &empty], &tokenizer, &out, &options()).unwrap_err();
    assert_eq!(error.code(), "ERR_EMPTY_CORPUS");
    assert_eq!(names(folder.path()), before);
    encode(&[&empty, &file], &tokenizer, &out, &options()).unwrap();
}

/// Returns the ids of `parts`, each encoded separately, optionally with `<|endoftext|>` after each.
pub(super) fn ids_of(tokenizer: &Tokenizer, parts: &[&str], end: bool) -> Vec<u32> {
    let end = end.then(|| tokenizer.token_id(END_OF_TEXT).unwrap());
    parts.iter().flat_map(|part| tokenizer.encode(part).unwrap().into_iter().chain(end)).collect()
}

#[test]
fn documents_of_every_kind_are_separate_and_ended() {
    let (folder, _, tokenizer) = corpus(10);
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let text = "\n \nthe whale\n the sea\r\n\n \t\n\na sea\n \nlast one\n";
    let (plain, empty) = (file("a.txt", text), file("b.txt", ""));
    let json = "{\"text\":\"the\\nwhale\"}\n\n{\"body\":1,\"text\":\"\"}\r\n{\"text\":\"sea\"}";
    let json = file("c.jsonl", json);
    let named = file("d.txt", "{\"body\":\"sea\"}\n");
    let out = folder.path().join("x_chunks");
    let cases: [(&[&Path], EncodeOptions, &[&str]); 6] = [
        (&[&plain, &empty, &plain], EncodeOptions { ..options() }, &[text, text]),
        (
            &[&plain],
            EncodeOptions { document: Some(Document::Block), ..options() },
            &["the whale\n the sea", "a sea", "last one"],
        ),
        (
            &[&plain],
            EncodeOptions { document: Some(Document::Line), ..options() },
            &[" ", "the whale", " the sea", " \t", "a sea", " ", "last one"],
        ),
        (&[&json], EncodeOptions { document: None, ..options() }, &["the\nwhale", "sea"]),
        (
            &[&json],
            EncodeOptions { document: Some(Document::Line), ..options() },
            &["the\nwhale", "sea"],
        ),
        (
            &[&named],
            EncodeOptions {
                format: Some(Format::Jsonl),
                text_field: "body".to_owned(),
                ..options()
            },
            &["sea"],
        ),
    ];
    for (files, o, parts) in cases {
        for append_eot in [false, true] {
            let o = EncodeOptions { append_eot, ..o.clone() };
            let summary = encode(files, &tokenizer, &out, &o).unwrap();
            let expected = ids_of(&tokenizer, parts, append_eot);
            assert_eq!(all(&out), expected, "{o:?}");
            assert_eq!(summary.bytes, tokenizer.decode_bytes(&expected).unwrap().len() as u64);
        }
    }
    let o = EncodeOptions { document: Some(Document::Block), ..options() };
    assert_eq!(encode(&[&json], &tokenizer, &out, &o).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
}

#[test]
fn documents_longer_than_blocks_stay_whole() {
    let (folder, _, tokenizer) = corpus(10);
    // Megabytes without a line break or blank line, then many short documents.
    let long = text(900_000).replace('\n', " x");
    let short: Vec<String> = (0..30_000).map(|i| format!("the sea {i}")).collect();
    let out = folder.path().join("x_chunks");
    for (document, between) in [(Document::Line, "\n"), (Document::Block, "\n\n")] {
        let mut parts = vec![long.as_str(), "sea", &long];
        parts.extend(short.iter().map(String::as_str));
        let file = folder.path().join("long.txt");
        std::fs::write(&file, parts.join(between)).unwrap();
        let o = EncodeOptions {
            document: Some(document),
            append_eot: true,
            chunk_size: 1 << 20,
            ..options()
        };
        encode(&[&file], &tokenizer, &out, &o).unwrap();
        assert!(all(&out) == ids_of(&tokenizer, &parts, true), "{document:?}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_the_store() {
    let (folder, file, tokenizer) = corpus(1_500_000);
    let expected = tokenizer.encode(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let out = folder.path().join("x_chunks");
    for threads in [1, 2, 3, 8] {
        let o = EncodeOptions { threads, chunk_size: 77_777, ..options() };
        encode(&[&file], &tokenizer, &out, &o).unwrap();
        assert!(all(&out) == expected, "{threads} threads");
    }
}

#[test]
fn uint16_stores_the_same_ids_unless_the_vocabulary_is_too_large() {
    let (folder, file, tokenizer) = corpus(100_000);
    let out = folder.path().join("data");
    let o = EncodeOptions { element: Element::Uint16, valid_fraction: 0.25, ..options() };
    let summary = encode(&[&file], &tokenizer, &out, &o).unwrap();
    let ids = tokenizer.encode(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let stored = [all(&summary.train), all(summary.valid.as_ref().unwrap())].concat();
    assert_eq!(stored, ids);
    let special: Vec<String> = (0..65_537).map(|i| format!("<{i}>")).collect();
    let options_of_large = TrainOptions {
        vocab_size: 0,
        special_tokens: special,
        kind: Kind::Chars,
        threads: 1,
        pattern: Pattern::Gpt2,
        min_frequency: 1,
        max_bytes: None,
    };
    let (large, _) =
        Tokenizer::train(std::slice::from_ref(&file), &options_of_large, &mut silent).unwrap();
    let error = encode(&[&file], &Arc::new(large), &out, &o).unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
}

#[test]
fn appending_an_unknown_end_of_text_is_an_error() {
    let (folder, file, _) = corpus(10);
    let options_of_chars = TrainOptions {
        vocab_size: 0,
        special_tokens: Vec::new(),
        kind: Kind::Chars,
        threads: 1,
        pattern: Pattern::Gpt2,
        min_frequency: 1,
        max_bytes: None,
    };
    let (chars, _) =
        Tokenizer::train(std::slice::from_ref(&file), &options_of_chars, &mut silent).unwrap();
    let o = EncodeOptions { append_eot: true, ..options() };
    let error =
        encode(&[&file], &Arc::new(chars), &folder.path().join("x_chunks"), &o).unwrap_err();
    assert!(error.to_string().contains(END_OF_TEXT), "{error}");
}
