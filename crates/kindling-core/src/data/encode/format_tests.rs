//! Tests of invalid UTF-8, compression and JSON Lines in text files.

use std::path::{Path, PathBuf};

use super::tests::{all, corpus, encode, ids_of, options, text};
use crate::test_support::names;

#[test]
fn invalid_utf8_at_block_boundaries_becomes_replacement_characters() {
    let (folder, _, tokenizer) = corpus(10);
    // An invalid byte every 61 bytes, so that some lie at the boundaries of blocks.
    let mut bytes = text(400_000).into_bytes();
    for at in (30..bytes.len()).step_by(61) {
        bytes[at] = [0xFF, 0xE2, 0x80, 0xF0][at % 4];
    }
    let file = folder.path().join("broken.txt");
    std::fs::write(&file, &bytes).unwrap();
    let out = folder.path().join("x_chunks");
    let summary = encode(&[&file], &tokenizer, &out, &options()).unwrap();
    assert!(all(&out) == tokenizer.encode(&String::from_utf8_lossy(&bytes)).unwrap());
    let replaced: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    assert_eq!(summary.replaced_bytes, replaced as u64);
}

fn compressed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compressed").join(name)
}

#[test]
fn all_gzip_members_and_zstd_frames_are_read() {
    let (folder, _, tokenizer) = corpus(10);
    let expected =
        tokenizer.encode(&std::fs::read_to_string(compressed("lines.txt")).unwrap()).unwrap();
    let out = folder.path().join("x_chunks");
    for name in ["lines.txt", "lines.txt.gz", "lines.txt.zst"] {
        // The contents decide, not the name.
        let renamed = folder.path().join("renamed.txt");
        std::fs::copy(compressed(name), &renamed).unwrap();
        for file in [&compressed(name), &renamed] {
            encode(&[file], &tokenizer, &out, &options()).unwrap();
            assert!(all(&out) == expected, "{name}");
        }
    }
}

#[test]
fn damaged_compressed_files_are_reported_and_leave_nothing() {
    let (folder, _, tokenizer) = corpus(10);
    let out = folder.path().join("deep/x_chunks");
    for name in ["lines.txt.gz", "lines.txt.zst"] {
        let whole = std::fs::read(compressed(name)).unwrap();
        let file = folder.path().join(name);
        let flipped = |at: usize| [&whole[..at], &[whole[at] ^ 0x10], &whole[at + 1..]].concat();
        let cut = |at: usize| whole[..at].to_vec();
        for bytes in
            [cut(0), cut(3), cut(100), cut(whole.len() - 1), flipped(1_000), flipped(2_500)]
        {
            std::fs::write(&file, bytes).unwrap();
            let before = names(folder.path());
            let error = encode(&[&file], &tokenizer, &out, &options()).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_CORPUS", "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(names(folder.path()), before);
        }
    }
}

#[test]
fn invalid_json_lines_are_reported_with_their_number() {
    let (folder, _, tokenizer) = corpus(10);
    let file = folder.path().join("bad.jsonl");
    let good = "{\"text\":\"the whale\"}\n".repeat(40_000);
    let out = folder.path().join("x_chunks");
    for (bad, said) in
        [("{\"txt\":\"x\"}", "\"text\""), ("the whale", "expected"), ("{\"text\":1}", "a text")]
    {
        std::fs::write(&file, format!("{good}{bad}\n{good}\n[]\n")).unwrap();
        let error = encode(&[&file], &tokenizer, &out, &options()).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_CORPUS");
        let message = error.to_string();
        assert!(message.contains("bad.jsonl, line 40001:") && message.contains(said), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn json_lines_read_as_the_tokenizer_reads_strings() {
    let (folder, _, tokenizer) = corpus(10);
    // A byte order mark, a lone surrogate, and a mark within a text.
    let json = "\u{FEFF}{\"text\":\"the\\ud800 sea\"}\n{\"text\":\"\u{FEFF}whale\"}\n";
    let json = folder.file("a.jsonl", json);
    // Plain text keeps its byte order mark, as `Tokenizer.encode` and Hugging Face do.
    let plain = folder.file("b.txt", "\u{FEFF}the sea");
    let out = folder.path().join("x_chunks");
    for (file, parts, replaced) in
        [(&json, &["the\u{FFFD} sea", "\u{FEFF}whale"][..], 3), (&plain, &["\u{FEFF}the sea"], 0)]
    {
        let summary = encode(&[file], &tokenizer, &out, &options()).unwrap();
        assert_eq!(all(&out), ids_of(&tokenizer, parts, false));
        assert_eq!(summary.replaced_bytes, replaced);
    }
}
