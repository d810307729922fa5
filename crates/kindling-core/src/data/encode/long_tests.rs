//! Tests that text without a cut is encoded as a whole, without being held in memory.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::tests::{all, corpus, encode, options};
use super::{EncodeOptions, encode_files};
use crate::corpus::Document;
use crate::corpus::blocks::BLOCK_SIZE;
use crate::progress::silent;
use crate::test_support::{Folder, names};
use crate::tokenizer::{Pattern, Tokenizer};
use crate::{Error, Result};

/// More bytes than a block may hold in memory.
const LENGTH: usize = 20 * BLOCK_SIZE;
/// A pattern with lookaround, for which no cuts are known.
const LOOKS_AROUND: &str = r"(?<=a)b+|\w+(?= )|\s+|[^\s\w]+|\w+";

fn tokenizer(pattern: &str) -> (Folder, Arc<Tokenizer>) {
    let (folder, _, tokenizer) = corpus(500);
    let tokenizer =
        Arc::into_inner(tokenizer).unwrap().with_pattern(Pattern::new(pattern).unwrap());
    (folder, Arc::new(tokenizer))
}

/// Returns words of a and b between spaces and other characters.
fn words(length: usize) -> String {
    let parts = ["ab", "b", " ", "abb b", "é", "<|endoftext|>", "鯨 ", "a", "\n", "!b"];
    let mut text = String::with_capacity(length + 16);
    for i in 0u32.. {
        if text.len() >= length {
            break;
        }
        text.push_str(parts[(i.wrapping_mul(2_654_435_761) >> 25) as usize % parts.len()]);
    }
    text
}

fn gzip(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap();
}

#[test]
fn files_encode_as_the_whole_text_does_under_any_pattern() {
    let (folder, tokenizer) = tokenizer(LOOKS_AROUND);
    let mut bytes = words(LENGTH).into_bytes();
    let short = folder.file("short.txt", "ab b after");
    let plain = folder.file("plain.txt", &bytes);
    let zipped = folder.path().join("zipped.gz");
    gzip(&zipped, &bytes);
    // Across the boundary between two reads, and at the end.
    for at in [BLOCK_SIZE - 1, 17 * BLOCK_SIZE, bytes.len() - 1] {
        bytes[at] = 0xF0;
    }
    let damaged = folder.file("damaged.txt", &bytes);
    for file in [&plain, &zipped, &damaged] {
        let damaged = *file == damaged;
        let whole = if damaged { bytes.clone() } else { std::fs::read(&plain).unwrap() };
        let mut expected = tokenizer.encode_bytes(&whole).unwrap();
        expected.extend(tokenizer.encode("ab b after").unwrap());
        for threads in [1, 3] {
            let out = folder.path().join("x_chunks");
            let options = EncodeOptions { chunk_size: 100_000, threads, ..options() };
            let summary = encode(&[file, &short], &tokenizer, &out, &options).unwrap();
            assert!(all(&out) == expected, "{} by {threads}", file.display());
            assert_eq!(summary.replaced_bytes > 0, damaged);
            let text = String::from_utf8_lossy(&whole).len() + "ab b after".len();
            assert_eq!(summary.bytes, text as u64);
        }
    }
}

#[test]
fn a_run_without_a_cut_is_encoded_whole() {
    let (folder, _, tokenizer) = corpus(500);
    let mut text = "the whale ".repeat(BLOCK_SIZE / 8);
    text.push_str(&" ".repeat(LENGTH));
    text.push_str(&" the\n\nsea whale".repeat(BLOCK_SIZE / 8));
    text.push_str(&"a".repeat(LENGTH));
    let file = folder.file("runs.txt", &text);
    let out = folder.path().join("x_chunks");
    let options = EncodeOptions { chunk_size: 100_000, ..options() };
    encode(&[&file], &tokenizer, &out, &options).unwrap();
    assert!(all(&out) == tokenizer.encode(&text).unwrap());
}

#[test]
fn long_lines_and_paragraphs_are_documents() {
    let (folder, tokenizer) = tokenizer(LOOKS_AROUND);
    let one = words(LENGTH).replace('\n', "");
    let documents = ["first", &one, "b b", &one[..LENGTH / 2]];
    let end = tokenizer.token_id("<|endoftext|>").unwrap();
    let expected: Vec<u32> = documents
        .iter()
        .flat_map(|text| tokenizer.encode(text).unwrap().into_iter().chain([end]))
        .collect();
    for (document, between) in [(Document::Line, "\n"), (Document::Block, "\n \n")] {
        let file = folder.file("lines.txt", documents.join(between));
        let out = folder.path().join("x_chunks");
        let document = Some(document);
        let options =
            EncodeOptions { chunk_size: 100_000, document, append_eot: true, ..options() };
        encode(&[&file], &tokenizer, &out, &options).unwrap();
        assert!(all(&out) == expected, "{document:?}");
    }
}

#[test]
fn long_json_lines_are_documents() {
    let (folder, tokenizer) = tokenizer(LOOKS_AROUND);
    let long = words(LENGTH);
    let texts = ["first", &long, "", &long[..LENGTH / 2], "last\nline"];
    let end = tokenizer.token_id("<|endoftext|>").unwrap();
    let mut expected = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        expected.extend(tokenizer.encode(text).unwrap());
        expected.push(end);
    }
    let lines: Vec<String> = texts
        .iter()
        .map(|text| serde_json::json!({ "meta": long, "text": text }).to_string())
        .collect();
    let file = folder.file("lines.jsonl", lines.join("\n"));
    let out = folder.path().join("x_chunks");
    let options = EncodeOptions { chunk_size: 100_000, append_eot: true, ..options() };
    let summary = encode(&[&file], &tokenizer, &out, &options).unwrap();
    assert!(all(&out) == expected);
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    assert_eq!(summary.bytes, (bytes + 4 * "<|endoftext|>".len()) as u64);
    let file =
        folder.file("wrong.jsonl", lines.join("\n") + "\n{\"text\":\"" + &long.replace('\n', " "));
    let error = encode(&[&file], &tokenizer, &out, &options).unwrap_err();
    assert!(error.to_string().contains("wrong.jsonl, line 6"), "{error}");
}

#[test]
fn a_run_cancelled_within_a_long_text_resumes_before_it() {
    let (folder, tokenizer) = tokenizer(LOOKS_AROUND);
    let files = [folder.file("a.txt", words(1000)), folder.file("b.txt", words(LENGTH))];
    let expected = files
        .iter()
        .flat_map(|file| tokenizer.encode_bytes(&std::fs::read(file).unwrap()).unwrap());
    let expected: Vec<u32> = expected.collect();
    let out = folder.path().join("x_chunks");
    let options = EncodeOptions { chunk_size: 10_000, keep_when_cancelled: true, ..options() };
    let mut reports = Vec::new();
    let mut stop = |done: u64, total: u64| -> Result<()> {
        reports.push(done);
        // Within the long text, whose pieces report their progress.
        if done > total / 3 && done < total / 2 { Err(Error::Cancelled) } else { Ok(()) }
    };
    let stopped = encode_files(&files, &tokenizer, &out, &options, &mut stop).unwrap_err();
    assert_eq!(stopped.code(), "ERR_CANCELLED", "{reports:?}");
    assert!(!out.exists());
    let summary = encode_files(&files, &tokenizer, &out, &options, &mut silent).unwrap();
    assert_eq!(summary.resumed_bytes, 1000.max(words(1000).len() as u64));
    assert!(all(&out) == expected);
    let left = names(folder.path());
    assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");
}
