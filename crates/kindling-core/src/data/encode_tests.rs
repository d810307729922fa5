//! Claims of encoding: the store holds the ids of the text, and an end before the end leaves nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::test_support::{Folder, names};
use super::{EncodeOptions, EncodeSummary, TokenStore, encode_files};
use crate::progress::silent;
use crate::tokenizer::{Kind, Tokenizer, TrainOptions};
use crate::{Error, Result};

const OPTIONS: EncodeOptions =
    EncodeOptions { chunk_size: 1_000, valid_fraction: 0.0, threads: 2, tokenizer_path: None };

/// Words and characters of one to four bytes.
fn text(words: u32) -> String {
    let parts = ["the", " whale", " sea", "\n", "é", " ß€", "鯨", "😀 "];
    (0..words).map(|i| parts[(i.wrapping_mul(2_654_435_761) >> 27) as usize % parts.len()]).collect()
}

/// A folder with text.txt, and a tokenizer of it.
fn corpus(words: u32) -> (Folder, PathBuf, Arc<Tokenizer>) {
    let folder = Folder::new();
    let (sample, file) = (folder.path().join("sample.txt"), folder.path().join("text.txt"));
    std::fs::write(&sample, text(500)).unwrap();
    std::fs::write(&file, text(words)).unwrap();
    let options = TrainOptions { vocab_size: 280, special_tokens: Vec::new(), kind: Kind::Bpe, threads: 1 };
    let (tokenizer, _) = Tokenizer::train(&[sample], &options, &mut silent).unwrap();
    (folder, file, Arc::new(tokenizer))
}

fn all(path: &Path) -> Vec<u32> {
    let store = TokenStore::open(path).unwrap();
    store.verify(&mut silent).unwrap();
    store.load_by_range(0, store.len()).unwrap().into_iter().map(|id| id as u32).collect()
}

fn encode(
    files: &[&Path],
    tokenizer: &Arc<Tokenizer>,
    out: &Path,
    o: &EncodeOptions,
) -> Result<EncodeSummary> {
    let files: Vec<_> = files.iter().map(|file| file.to_path_buf()).collect();
    encode_files(&files, tokenizer, out, o, &mut silent)
}

#[test]
fn a_store_holds_the_ids_of_a_text_of_several_blocks() {
    let (folder, file, tokenizer) = corpus(1_200_000);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.len() > 2 << 21, "longer than two blocks");
    let out = folder.path().join("a/x_chunks");
    let options = EncodeOptions { chunk_size: 100_000, ..OPTIONS };
    let summary = encode(&[&file], &tokenizer, &out, &options).unwrap();
    let ids = tokenizer.encode(&text).unwrap();
    assert_eq!(all(&out), ids);
    let expected = EncodeSummary {
        tokens: ids.len() as u64,
        bytes: text.len() as u64,
        replaced_bytes: 0,
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
fn files_follow_each_other_and_no_token_crosses_from_one_into_the_next() {
    let (folder, _, tokenizer) = corpus(10);
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&a, "the whale the wh").unwrap();
    std::fs::write(&b, "ale sea").unwrap();
    let out = folder.path().join("x_chunks");
    encode(&[&a, &b], &tokenizer, &out, &OPTIONS).unwrap();
    assert_eq!(
        all(&out),
        [tokenizer.encode("the whale the wh").unwrap(), tokenizer.encode("ale sea").unwrap()].concat()
    );
}

#[test]
fn the_validation_store_begins_at_the_floor_of_what_is_kept() {
    let (folder, file, tokenizer) = corpus(3_000);
    let ids = tokenizer.encode(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for (fraction, chunk_size) in [(0.1, 1_000), (0.5, 7), (0.999, 100), (1e-9, 1_000)] {
        let out = folder.path().join("data");
        let options = EncodeOptions { chunk_size, valid_fraction: fraction, ..OPTIONS };
        let summary = encode(&[&file], &tokenizer, &out, &options).unwrap();
        let kept = (ids.len() as f64 * (1.0 - fraction)).floor() as usize;
        assert_eq!(all(&summary.train), ids[..kept]);
        assert_eq!(all(summary.valid.as_ref().unwrap()), ids[kept..]);
        assert_eq!(names(&out), ["tokenizer", "train_chunks", "valid_chunks"]);
        let metadata = TokenStore::open(&summary.train).unwrap().metadata().clone();
        assert_eq!(metadata.tokenizer_path.as_deref(), Some("../tokenizer"));
        assert_eq!(metadata.bytes, Some(tokenizer.decode_bytes(&ids[..kept]).unwrap().len() as u64));
        assert_eq!(metadata.max_id, ids[..kept].iter().max().copied());
    }
}

#[test]
fn an_end_at_any_moment_leaves_the_place_as_it_was() {
    let (folder, file, tokenizer) = corpus(700_000);
    let files = [file];
    let options = EncodeOptions { valid_fraction: 0.2, chunk_size: 100_000, ..OPTIONS };
    let out = folder.path().join("deep/data");
    // Once with nothing there, once over an older store.
    for round in 0..2 {
        let before =
            (names(folder.path()), (round > 0).then(|| (names(&out), all(&out.join("train_chunks")))));
        let mut calls = 0;
        loop {
            let mut left = calls;
            let mut stop = |_, _| {
                left -= 1;
                if left < 0 { Err(Error::Cancelled) } else { Ok(()) }
            };
            match encode_files(&files, &tokenizer, &out, &options, &mut stop) {
                Err(error) => assert_eq!(error.code(), "ERR_CANCELLED"),
                Ok(_) => break,
            }
            let after =
                (names(folder.path()), (round > 0).then(|| (names(&out), all(&out.join("train_chunks")))));
            assert_eq!(after, before);
            calls += 1;
        }
        assert!(calls > 3, "it was ended while reading and while splitting");
        assert_eq!(names(&out), ["tokenizer", "train_chunks", "valid_chunks"]);
    }
}

#[test]
fn a_tokenizer_that_is_there_already_stays_with_the_files_beside_it() {
    let (folder, file, tokenizer) = corpus(100);
    let out = folder.path().join("data");
    encode(&[&file], &tokenizer, &out, &OPTIONS).unwrap();
    std::fs::write(out.join("tokenizer/notes.txt"), "mine").unwrap();
    encode(&[&file], &tokenizer, &out, &OPTIONS).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("tokenizer/notes.txt")).unwrap(), "mine");
}

#[test]
fn a_corpus_without_text_is_refused() {
    let (folder, file, tokenizer) = corpus(10);
    let empty = folder.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    let before = names(folder.path());
    let out = folder.path().join("out/data");
    let error = encode(&[&empty, &empty], &tokenizer, &out, &OPTIONS).unwrap_err();
    assert_eq!(error.code(), "ERR_EMPTY_CORPUS");
    assert_eq!(names(folder.path()), before);
    encode(&[&empty, &file], &tokenizer, &out, &OPTIONS).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_as_one() {
    // Every write to this device fails as on a full disk.
    let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let error = std::io::Write::write_all(&mut full, b"x").unwrap_err();
    assert_eq!(Error::io("cannot write", "/dev/full", error).code(), "ERR_DISK_FULL");
}
