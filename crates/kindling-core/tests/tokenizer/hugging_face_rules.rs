//! Tests of tokenizers of other families against ids from Hugging Face `tokenizers`: normalization,
//! digits, whole words, flags of special tokens and templates; and of the values of GGUF files.

use kindling_core::tokenizer::{GgufVocab, Kind, Pattern, StreamEncoder, Template, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Folder, gpt2, json as fixture, text};

/// Written by `scripts/fixtures/hugging_face_rules.py`.
#[derive(Deserialize)]
struct Fixture {
    texts: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// The rest of the tokenizer.json around GPT-2's vocabulary and merges, as JSON.
    parts: String,
    ids: Vec<Vec<u32>>,
    with_template: Vec<Vec<u32>>,
    decoded: Vec<String>,
}

/// Opens a tokenizer.json with GPT-2's vocabulary and merges.
fn open(folder: &Folder, parts: &str) -> kindling_core::Result<Tokenizer> {
    let mut file: Value = serde_json::from_str(parts).unwrap();
    let vocab: Value = serde_json::from_str(&text("gpt2_vocab.json")).unwrap();
    let lines = text("gpt2_merges.txt");
    let merges: Vec<&str> =
        lines.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    file["model"] = json!({"type": "BPE", "vocab": vocab, "merges": merges,
        "ignore_merges": file["ignore_merges"]});
    Tokenizer::open(folder.file("tokenizer.json", file.to_string()))
}

fn check(tokenizer: &Tokenizer, texts: &[String], case: &Case) {
    for (i, text) in texts.iter().enumerate() {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, case.ids[i], "{}: {text:?}", case.name);
        let with_template = tokenizer.encode_with_template(text).unwrap();
        assert_eq!(with_template, case.with_template[i], "{}: {text:?}", case.name);
        assert_eq!(tokenizer.decode(&ids).unwrap(), case.decoded[i], "{}: {text:?}", case.name);
    }
}

#[test]
fn rules_of_other_families_result_in_their_ids_before_and_after_saving() {
    let Fixture { texts, cases } = fixture("hugging_face_rules.json");
    assert_eq!((texts.len(), cases.len()), (32, 5));
    for case in cases {
        let (folder, saved) = (Folder::new(), Folder::new());
        let tokenizer = open(&folder, &case.parts).unwrap();
        check(&tokenizer, &texts, &case);
        tokenizer.save(&saved.0).unwrap();
        let reopened = Tokenizer::open(&saved.0).unwrap();
        check(&reopened, &texts, &case);
        assert_eq!(reopened.hash(), tokenizer.hash(), "{}", case.name);
        assert!(tokenizer.hash() != gpt2().hash(), "{}", case.name);
    }
}

#[test]
fn pieces_of_a_text_encode_as_the_whole_under_every_rule() {
    let Fixture { texts, cases } = fixture("hugging_face_rules.json");
    let whole = texts.concat().repeat(3);
    for case in cases {
        let folder = Folder::new();
        let tokenizer = std::sync::Arc::new(open(&folder, &case.parts).unwrap());
        let expected = tokenizer.encode(&whole).unwrap();
        for (piece, block) in [(1, 1), (7, 64), (1000, 256)] {
            let mut encoder = StreamEncoder::with_block(tokenizer.clone(), block);
            let mut ids = Vec::new();
            for bytes in whole.as_bytes().chunks(piece) {
                encoder.push(bytes, &mut ids).unwrap();
            }
            assert!(!ids.is_empty(), "{}: nothing was encoded before the end", case.name);
            encoder.finish(&mut ids).unwrap();
            assert!(ids == expected, "{} in pieces of {piece}", case.name);
        }
    }
}

#[test]
fn what_cannot_be_had_exactly_is_refused_by_name() {
    let Fixture { cases, .. } = fixture("hugging_face_rules.json");
    let folder = Folder::new();
    let qwen = cases.iter().find(|case| case.name == "qwen").unwrap();
    let reject = |pointer: &str, value: Value, says: &str| {
        let mut parts: Value = serde_json::from_str(&qwen.parts).unwrap();
        *parts.pointer_mut(pointer).unwrap() = value;
        let error = open(&folder, &parts.to_string()).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_TOKENIZER", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    reject("/normalizer/type", "NFKC".into(), "normalizer \"NFKC\"");
    reject(
        "/normalizer",
        json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}),
        "\"Lowercase\"",
    );
    reject("/pre_tokenizer/pretokenizers/0/behavior", "MergedWithNext".into(), "MergedWithNext");
    reject("/pre_tokenizer/pretokenizers/0/invert", true.into(), "invert true");
    reject("/pre_tokenizer/pretokenizers/1/add_prefix_space", true.into(), "prefix space");
    reject(
        "/pre_tokenizer/pretokenizers/0",
        json!({"type": "Digits", "individual_digits": false}),
        "individual_digits",
    );
    reject("/post_processor", json!({"type": "RobertaProcessing"}), "\"RobertaProcessing\"");
    reject(
        "/post_processor",
        json!({"type": "TemplateProcessing", "single": []}),
        "does not contain the text",
    );
    let unknown = json!([{"SpecialToken": {"id": "<x>"}}, {"Sequence": {"id": "A"}}]);
    reject(
        "/post_processor",
        json!({"type": "TemplateProcessing", "single": unknown, "special_tokens": {}}),
        "<x>",
    );
    let outside = json!({"<x>": {"ids": [60000]}});
    reject(
        "/post_processor",
        json!({"type": "TemplateProcessing", "single": unknown, "special_tokens": outside}),
        "60000",
    );
    reject("/decoder/type", "Metaspace".into(), "decoder \"Metaspace\"");
    reject("/added_tokens/1/normalized", true.into(), "together with a normalizer");
    reject("/added_tokens/1/id", 50258.into(), "has the id 50258");
}

/// Returns the values of a GGUF file with GPT-2's vocabulary.
fn gguf(pre: &str) -> GgufVocab {
    GgufVocab { pre: pre.to_owned(), ..gpt2().to_gguf().unwrap() }
}

#[test]
fn the_values_of_a_gguf_file_make_the_tokenizer_of_its_family() {
    let Fixture { texts, cases } = fixture("hugging_face_rules.json");
    for (pre, name) in [("smollm", "smollm"), ("qwen2", "qwen"), ("llama-bpe", "llama")] {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        let mut vocab = gguf(pre);
        let added: &[(&str, i32)] = match name {
            "qwen" => &[("<tool>", 4), ("e\u{301}", 3)],
            "llama" => &[("<|begin|>", 3)],
            _ => &[],
        };
        for &(token, kind) in added {
            vocab.tokens.push(token.to_owned());
            vocab.token_types.push(kind);
        }
        (vocab.bos, vocab.add_bos) = (Some(50257), None);
        let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
        check(&tokenizer, &texts, case);
        let written = tokenizer.to_gguf().unwrap();
        let bos = (name == "llama").then_some(50257);
        let expected = GgufVocab {
            bos,
            eos: Some(50256),
            add_bos: Some(bos.is_some()),
            add_eos: Some(false),
            ..vocab
        };
        assert!(written == expected, "{pre}");
    }
}

#[test]
fn unused_entries_of_a_gguf_file_are_kept_and_never_encoded() {
    let mut vocab = gguf("llama-bpe");
    (vocab.add_bos, vocab.bos) = (Some(false), None);
    vocab.tokens.push("PADDED".to_owned());
    vocab.token_types.push(5);
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert_eq!(tokenizer.vocab_size(), 50258);
    assert!(!tokenizer.encode("PADDED").unwrap().contains(&50257));
    assert_eq!(tokenizer.decode(&[50257]).unwrap(), "PADDED");
    assert_eq!(tokenizer.to_gguf().unwrap().token_types[50257], 5);
}

#[test]
fn gguf_values_that_are_unknown_or_disagree_are_coded_errors() {
    let reject = |change: &dyn Fn(&mut GgufVocab), code: &str, says: &str| {
        let mut vocab = gguf("gpt-2");
        change(&mut vocab);
        let error = Tokenizer::from_gguf(&vocab).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    let invalid = "ERR_INVALID_TOKENIZER";
    reject(&|v| "deepseek-llm".clone_into(&mut v.pre), "ERR_UNSUPPORTED", "deepseek-llm");
    reject(&|v| v.tokens[7] = "!".to_owned(), invalid, "are both \"!\"");
    reject(&|v| v.token_types.truncate(9), invalid, "but 9 token types");
    reject(&|v| v.token_types[9] = 77, invalid, "unknown type 77");
    reject(&|v| v.merges[3] = "ab".to_owned(), invalid, "merge 3");
    reject(&|v| v.merges[3] = "a \u{4e2d}".to_owned(), invalid, "not in the vocabulary");
    reject(&|v| (v.add_bos, v.bos) = (Some(true), None), invalid, "which one");
    reject(&|v| (v.add_bos, v.bos) = (Some(true), Some(60000)), invalid, "is 60000");
    reject(&|v| v.tokens.clear(), invalid, "but 50257 token types");
    reject(
        &|v| *v = GgufVocab { pre: "gpt-2".into(), ..GgufVocab::default() },
        invalid,
        "no tokens",
    );
}

#[test]
fn a_tokenizer_that_llama_cpp_cannot_reproduce_is_refused_by_name() {
    let reject = |tokenizer: Tokenizer, says: &str| {
        let error = tokenizer.to_gguf().unwrap_err();
        assert_eq!(error.code(), "ERR_UNSUPPORTED", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    reject(gpt2().with_pattern(Pattern::new("cl100k").unwrap()), "gpt2, smollm, llama3 or qwen2");
    reject(gpt2().with_pattern(Pattern::new("[a-z]").unwrap()), "[a-z]");
    let twice = Template { before: vec![1, 2], after: vec![] };
    reject(gpt2().with_template(twice).unwrap(), "more than one token");
    let error = gpt2().with_template(Template { before: vec![60000], after: vec![] }).unwrap_err();
    assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
    let folder = Folder::new();
    let Fixture { cases, .. } = fixture("hugging_face_rules.json");
    let flags = cases.iter().find(|case| case.name == "flags").unwrap();
    reject(open(&folder, &flags.parts).unwrap(), "sets single_word, lstrip or rstrip");
    let mut nfc: Value = serde_json::from_str(&flags.parts).unwrap();
    (nfc["normalizer"], nfc["added_tokens"]) = (json!({"type": "NFC"}), json!([]));
    reject(open(&folder, &nfc.to_string()).unwrap(), "normalizes text");
    // Merging never results in the token "qqqq", which llama-bpe would use for the word.
    let mut vocab = gguf("llama-bpe");
    (vocab.add_bos, vocab.bos) = (Some(false), None);
    vocab.tokens.push("qqqq".to_owned());
    vocab.token_types.push(1);
    let ignoring = Tokenizer::from_gguf(&vocab).unwrap();
    assert_eq!(ignoring.encode("qqqq").unwrap(), [50257]);
    assert!(ignoring.to_gguf().unwrap() == GgufVocab { eos: Some(50256), ..vocab.clone() });
    reject(ignoring.with_pattern(Pattern::Gpt2), "gpt-2 does not ignore merges");
    let merging = Tokenizer::from_gguf(&GgufVocab { pre: "gpt-2".into(), ..vocab }).unwrap();
    reject(merging.with_pattern(Pattern::Llama3), "llama-bpe ignores merges");
    let folder = Folder::new();
    let file = folder.file("corpus.txt", "abc");
    let options = crate::training::options(0, &[], Kind::Chars, 1);
    let mut silent = kindling_core::progress::silent;
    let (characters, _) = Tokenizer::train(&[file], &options, &mut silent).unwrap();
    reject(characters, "one token per character");
}
