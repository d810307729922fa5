//! Tests that ids equal those of tiktoken and Hugging Face, decoding equals Python's, and any text
//! round-trips.

use std::collections::BTreeMap;
use std::sync::Arc;

use kindling_core::tokenizer::{Pattern, StreamEncoder, Tokenizer};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Draw, END, fixture, gpt2, gpt2_with, json, text};

#[derive(Deserialize)]
struct Expected {
    count: usize,
    sha256: String,
}

fn sha256(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn gpt2_ids_of_texts_equal_those_of_tiktoken_and_hugging_face_from_any_cache() {
    let tokenizer = gpt2();
    let expected: BTreeMap<String, Expected> = json("gpt2_ids.json");
    assert_eq!(expected.len(), 6);
    for (name, expected) in expected {
        let text = text(&name);
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!((ids.len(), sha256(&ids)), (expected.count, expected.sha256), "{name}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{name}");
        tokenizer.expect_much_text();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}"));
            }
        });
    }
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn gpt2_ids_of_random_unicode_equal_those_of_tiktoken_and_hugging_face() {
    let tokenizer = gpt2();
    for case in json::<Vec<Case>>("unicode_ids.json") {
        assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids).unwrap(), case.text);
    }
}

#[test]
fn ids_of_a_small_vocabulary_equal_those_of_hugging_face_from_either_format() {
    let own = Tokenizer::open(fixture("hugging_face.json")).unwrap();
    let two = Tokenizer::from_files(
        fixture("train-bpe-reference-vocab.json"),
        fixture("train-bpe-reference-merges.txt"),
        &[END.to_owned()],
    )
    .unwrap();
    assert_eq!(own.hash(), two.hash());
    let ids: Vec<Vec<u32>> = json("unicode_small_ids.json");
    for (case, ids) in json::<Vec<Case>>("unicode_ids.json").iter().zip(ids) {
        assert_eq!(own.encode(&case.text).unwrap(), ids, "{:?}", case.text);
    }
}

#[derive(Deserialize)]
struct Replaced {
    bytes: String,
    text: String,
}

#[test]
fn invalid_utf8_decodes_as_python_replaces_it() {
    let tokenizer = gpt2();
    let mut byte_ids = [0; 256];
    for id in 0..256 {
        byte_ids[usize::from(tokenizer.token_bytes(id).unwrap()[0])] = id;
    }
    for case in json::<Vec<Replaced>>("replaced_bytes.json") {
        let digits = |at: usize| u8::from_str_radix(&case.bytes[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..case.bytes.len()).step_by(2).map(digits).collect();
        let ids: Vec<u32> = bytes.iter().map(|&byte| byte_ids[usize::from(byte)]).collect();
        assert_eq!(tokenizer.decode(&ids).unwrap(), case.text, "{}", case.bytes);
        assert_eq!(tokenizer.decode_bytes(&ids).unwrap(), bytes);
        assert_eq!(tokenizer.encode_bytes(&bytes).unwrap(), tokenizer.encode(&case.text).unwrap());
    }
}

#[test]
fn any_string_round_trips() {
    let tokenizer = gpt2();
    for seed in 0..200 {
        let mut draw = Draw::new(seed);
        let length = draw.below(200);
        let string: String = (0..length)
            .filter_map(|_| char::from_u32(draw.below(0x11_0000) as u32 >> draw.below(14)))
            .collect();
        assert_eq!(tokenizer.decode(&tokenizer.encode(&string).unwrap()).unwrap(), string);
    }
    assert_eq!(tokenizer.encode("").unwrap(), [0; 0]);
    assert_eq!(tokenizer.decode(&[]).unwrap(), "");
}

#[test]
fn the_longest_special_token_wins_and_round_trips() {
    let double = format!("{END}{END}");
    let tokenizer = gpt2_with(&[END, &double]);
    assert_eq!(tokenizer.vocab_size(), 50258);
    assert_eq!(tokenizer.special_tokens(), [(END.to_owned(), 50256), (double.clone(), 50257)]);
    let text = format!("Hello, how {double} are you?{END} {double}{END}");
    let ids = tokenizer.encode(&text).unwrap();
    let special: Vec<u32> = ids.iter().copied().filter(|id| *id >= 50256).collect();
    assert_eq!(special, [50257, 50256, 50257, 50256]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.token_id(&double), Some(50257));
}

#[test]
fn the_text_of_an_undeclared_special_token_is_ordinary() {
    let ids = gpt2_with(&[]).encode(END).unwrap();
    assert_eq!(ids, [27, 91, 437, 1659, 5239, 91, 29]);
}

#[test]
fn an_unknown_id_is_a_coded_error() {
    let error = gpt2().decode(&[5, 50257]).unwrap_err();
    assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
    assert!(error.to_string().contains("50257 at position 1"), "{error}");
}

#[test]
fn a_word_of_megabytes_does_not_take_quadratic_time() {
    // Scanning three million letters for each merge would take hours.
    let word = "abcab".repeat(600_000);
    let tokenizer = gpt2();
    let ids = tokenizer.encode(&word).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), word);
}

#[derive(Deserialize)]
struct PatternCase {
    text: String,
    gpt2: Vec<u32>,
    cl100k: Vec<u32>,
    llama3: Vec<u32>,
}

#[test]
fn ids_of_each_named_pattern_equal_those_of_tiktoken_after_saving_and_in_any_blocks() {
    let folder = crate::Folder::new();
    let cases: Vec<PatternCase> = json("pattern_ids.json");
    let end = "<|endoftext|>";
    for name in ["gpt2", "cl100k", "llama3"] {
        let pattern = Pattern::new(name).unwrap();
        let tokenizer = gpt2().with_pattern(pattern.clone());
        tokenizer.save(&folder.0).unwrap();
        let opened = Tokenizer::open(&folder.0).unwrap();
        assert_eq!(opened.hash(), tokenizer.hash());
        assert_eq!(*opened.pattern(), pattern);
        let (mut whole, mut all) = (String::new(), Vec::new());
        for case in &cases {
            let ids = match name {
                "gpt2" => &case.gpt2,
                "cl100k" => &case.cl100k,
                _ => &case.llama3,
            };
            assert_eq!(opened.encode(&case.text).unwrap(), *ids, "{name}: {:?}", case.text);
            whole += &case.text;
            whole += end;
            all.extend(ids);
            all.push(opened.token_id(end).unwrap());
        }
        let opened = Arc::new(opened);
        for block in [0, 7, 100, 5000] {
            let (mut encoder, mut ids) =
                (StreamEncoder::with_block(Arc::clone(&opened), block), Vec::new());
            for piece in whole.as_bytes().chunks(1 + block / 2) {
                encoder.push(piece, &mut ids).unwrap();
            }
            encoder.finish(&mut ids).unwrap();
            assert_eq!(ids, all, "{name}, blocks of {block}");
        }
    }
}

#[test]
fn no_merge_crosses_the_bounds_of_a_custom_pattern() {
    let tokenizer = gpt2().with_pattern(Pattern::new("[a-z]").unwrap());
    let ids = tokenizer.encode("the THE").unwrap();
    let tokens: Vec<&[u8]> = ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
    assert_eq!(tokens, [b"t".as_slice(), b"h", b"e", b" THE"]);
    assert_ne!(tokenizer.hash(), gpt2().hash());
}
