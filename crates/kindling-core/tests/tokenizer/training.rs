//! Tests of training against the course's reference and the definition of BPE, on several files and
//! threads, and on bad input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kindling_core::progress::silent;
use kindling_core::tokenizer::{Kind, Pattern, Tokenizer, TrainOptions};
use kindling_core::{Error, Result};

use crate::{Draw, END, Folder, fixture, json, reference, strings, text};

pub fn options(vocab_size: usize, special: &[&str], kind: Kind, threads: usize) -> TrainOptions {
    TrainOptions {
        vocab_size,
        special_tokens: strings(special),
        kind,
        pattern: Pattern::Gpt2,
        threads,
        min_frequency: 1,
        max_bytes: None,
    }
}

fn train(files: &[PathBuf], options: &TrainOptions) -> Result<Tokenizer> {
    Tokenizer::train(files, options, &mut silent).map(|(tokenizer, _)| tokenizer)
}

fn vocabulary(tokenizer: &Tokenizer) -> Vec<Vec<u8>> {
    (0..tokenizer.vocab_size() as u32)
        .map(|id| tokenizer.token_bytes(id).unwrap().to_vec())
        .collect()
}

#[test]
fn the_corpus_of_the_course_trains_its_reference_vocabulary_and_merges() {
    let expected = Tokenizer::from_files(
        fixture("train-bpe-reference-vocab.json"),
        fixture("train-bpe-reference-merges.txt"),
        &strings(&[END]),
    )
    .unwrap();
    for threads in [1, 2, 5] {
        let trained =
            train(&[fixture("corpus.en")], &options(500, &[END], Kind::Bpe, threads)).unwrap();
        assert_eq!(trained.vocab_size(), 500);
        assert_eq!(trained.num_merges(), 243);
        // The hash covers every token with its id and every merge in order.
        assert_eq!(trained.hash(), expected.hash(), "{threads} threads");
    }
}

#[test]
fn small_corpora_full_of_ties_train_as_the_definition_says() {
    let folder = Folder::new();
    let alphabets: [&[&str]; 4] = [
        &["a", "b", " "],
        &["a", "a", "b", "c", " ", "'s"],
        &["x", "é", "日", " ", "\n", "1", "!"],
        &["ab", "ba", " a", "<e>", "<e><e>", "b"],
    ];
    for seed in 0..60 {
        let mut draw = Draw::new(seed);
        let length = 1 + draw.below(100);
        let text = draw.string(length, alphabets[seed as usize % 4]);
        let special = strings(&["<e>"]);
        let size = 257 + draw.below(40);
        let (vocab, merges) = reference::train(&text, size, &special);
        let file = folder.file("corpus.txt", &text);
        let trained =
            train(&[file], &options(size, &["<e>"], Kind::Bpe, 1 + seed as usize % 3)).unwrap();
        assert_eq!(vocabulary(&trained), vocab, "{text:?} seed {seed}");
        assert_eq!(trained.num_merges(), merges.len());
        let saved = folder.0.join("saved");
        trained.save(&saved).unwrap();
        let lines = std::fs::read_to_string(saved.join("merges.txt")).unwrap();
        let expected: Vec<String> = merges
            .iter()
            .map(|(left, right)| {
                let text = |bytes: &[u8]| kindling_core::tokenizer::byte_chars::to_text(bytes);
                format!("{} {}", text(left), text(right))
            })
            .collect();
        assert_eq!(lines.lines().skip(1).collect::<Vec<_>>(), expected, "{text:?} seed {seed}");
    }
}

#[test]
fn merges_equal_those_of_hugging_face_up_to_the_first_tie_broken_differently() {
    let expected: BTreeMap<String, Vec<String>> = json("hugging_face_merges.json");
    assert_eq!(expected.len(), 3);
    let folder = Folder::new();
    for (name, expected) in expected {
        let corpus = folder.file(&name, text(&name));
        let trained = train(&[corpus], &options(256 + expected.len(), &[], Kind::Bpe, 2)).unwrap();
        trained.save(&folder.0).unwrap();
        let lines = std::fs::read_to_string(folder.0.join("merges.txt")).unwrap();
        assert!(lines.lines().skip(1).eq(expected.iter().map(String::as_str)), "{name}");
    }
}

#[test]
fn special_tokens_are_never_merged() {
    let folder = Folder::new();
    let file =
        folder.file("corpus.txt", "low<|endoftext|>low<|endoftext|>lower<|endoftext|>".repeat(50));
    let trained = train(&[file], &options(300, &[END], Kind::Bpe, 2)).unwrap();
    let pieces: [&[u8]; 3] = [b"<|", b"endo", b"|>"];
    let vocab = vocabulary(&trained);
    assert!(
        vocab[257..]
            .iter()
            .all(|token| pieces.iter().all(|p| !token.windows(p.len()).any(|w| w == *p)))
    );
    assert_eq!(vocab[0], END.as_bytes());
    assert_eq!(trained.encode("low<|endoftext|>").unwrap().len(), 2);
}

#[test]
fn files_count_together_and_no_word_spans_two() {
    let folder = Folder::new();
    let files = [folder.file("a.txt", "ab ab a"), folder.file("b.txt", "b ab")];
    let joined = [folder.file("c.txt", "ab ab a\u{0}b ab")];
    let options = options(260, &[], Kind::Bpe, 2);
    let (two, one) = (train(&files, &options).unwrap(), train(&joined, &options).unwrap());
    assert_eq!(two.token_id("ab"), one.token_id("ab"));
    assert_eq!(two.token_id(" ab"), Some(257));
}

#[test]
fn a_corpus_with_too_few_pairs_trains_a_smaller_vocabulary() {
    let folder = Folder::new();
    let trained =
        train(&[folder.file("a.txt", "ab c")], &options(1000, &[], Kind::Bpe, 1)).unwrap();
    assert_eq!(trained.vocab_size(), 258);
}

#[test]
fn invalid_utf8_is_replaced_and_counted() {
    let folder = Folder::new();
    let files = [folder.file("a.txt", b"caf\xE9 caf\xE9"), folder.file("b.txt", b"ok \xE2\x82")];
    let (trained, summary) =
        Tokenizer::train(&files, &options(260, &[], Kind::Bpe, 2), &mut silent).unwrap();
    assert_eq!((summary.bytes, summary.replaced_bytes), (14, 4));
    assert!(trained.encode("\u{FFFD}").unwrap().len() < 3, "U+FFFD was learned");
}

#[test]
fn characters_get_ids_by_code_point_after_the_special_tokens() {
    let folder = Folder::new();
    let file = folder.file("a.txt", "hé日 <e> hello\n");
    let plain = train(std::slice::from_ref(&file), &options(0, &[], Kind::Chars, 1)).unwrap();
    assert_eq!(
        plain.decode(&(0..plain.vocab_size() as u32).collect::<Vec<_>>()).unwrap(),
        "\n <>ehloé日"
    );
    let special = train(&[file], &options(0, &["<e>"], Kind::Chars, 3)).unwrap();
    let all: Vec<u32> = (0..special.vocab_size() as u32).collect();
    assert_eq!(special.decode(&all).unwrap(), "<e>\n ehloé日");
    assert_eq!(special.encode("h<e>日").unwrap(), [4, 0, 8]);
    let error = special.encode("hi").unwrap_err();
    assert_eq!(error.code(), "ERR_UNKNOWN_CHARACTER");
    assert!(error.to_string().contains("'i'"), "{error}");
}

#[test]
fn bad_input_is_a_coded_error() {
    let folder = Folder::new();
    let (good, empty) = (folder.file("a.txt", "text"), folder.file("empty.txt", ""));
    let code =
        |files: &[PathBuf], options: &TrainOptions| train(files, options).unwrap_err().code();
    let bpe = |size, special: &[&str]| options(size, special, Kind::Bpe, 2);
    assert_eq!(code(&[folder.0.join("none.txt")], &bpe(300, &[])), "ERR_NOT_FOUND");
    assert_eq!(code(&[good.clone(), folder.0.join("none.txt")], &bpe(300, &[])), "ERR_NOT_FOUND");
    assert_eq!(code(std::slice::from_ref(&empty), &bpe(300, &[])), "ERR_EMPTY_CORPUS");
    assert_eq!(
        code(std::slice::from_ref(&empty), &options(0, &[], Kind::Chars, 1)),
        "ERR_EMPTY_CORPUS"
    );
    assert!(train(&[empty, good.clone()], &bpe(300, &[])).is_ok());
    assert_eq!(code(&[], &bpe(300, &[])), "ERR_INVALID_ARGUMENT");
    assert_eq!(code(std::slice::from_ref(&folder.0), &bpe(300, &[])), "ERR_INVALID_ARGUMENT");
    for (size, special) in
        [(256, &["<e>"][..]), (300, &["<e>", "<e>"]), (300, &[""]), (300, &["Ġ"]), (300, &["a"])]
    {
        assert_eq!(
            code(std::slice::from_ref(&good), &bpe(size, special)),
            "ERR_INVALID_ARGUMENT",
            "{special:?}"
        );
    }
}

#[test]
fn a_merge_written_like_a_special_token_is_dropped() {
    // vocab.json could not distinguish the token " t" from the special token "Ġt".
    let folder = Folder::new();
    let file = folder.file("a.txt", "a t t t to to to");
    let trained = train(&[file], &options(300, &["Ġt"], Kind::Bpe, 1)).unwrap();
    trained.save(&folder.0).unwrap();
    let opened = Tokenizer::open(&folder.0).unwrap();
    assert_eq!(opened.hash(), trained.hash());
    let text = "a t Ġt to";
    assert_eq!(opened.decode(&opened.encode(text).unwrap()).unwrap(), text);
}

#[test]
fn an_error_of_progress_stops_training() {
    let folder = Folder::new();
    let file = folder.file("a.txt", "some text ".repeat(1000));
    for threads in [1, 3] {
        let mut cancel = |_: u64, _: u64| Err(Error::Cancelled);
        let options = options(300, &[], Kind::Bpe, threads);
        let error =
            Tokenizer::train(std::slice::from_ref(&file), &options, &mut cancel).unwrap_err();
        assert_eq!(error.code(), "ERR_CANCELLED");
    }
}
