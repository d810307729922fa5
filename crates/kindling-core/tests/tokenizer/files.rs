//! Tests of reading and writing vocab.json, merges.txt and tokenizer.json, and of malformed files.

use std::path::PathBuf;

use kindling_core::tokenizer::{Kind, Tokenizer};

use crate::{END, Folder, fixture, gpt2, gpt2_with, strings, text};

#[test]
fn gpt2s_vocabulary_saves_to_its_original_bytes() {
    let folder = Folder::new();
    gpt2().save(&folder.0).unwrap();
    let saved = |name: &str| std::fs::read_to_string(folder.0.join(name)).unwrap();
    assert!(saved("vocab.json") == text("gpt2_vocab.json"));
    assert!(saved("merges.txt") == format!("#version: 0.2\n{}", text("gpt2_merges.txt")));
    let names: Vec<String> = std::fs::read_dir(&folder.0)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 3, "temporary files are left: {names:?}");
}

#[test]
fn a_saved_tokenizer_opens_from_each_of_its_files() {
    let folder = Folder::new();
    let double = format!("{END}{END}");
    for special in [&[][..], &[END], &[double.as_str(), END, "日本 é"]] {
        let tokenizer = gpt2_with(special);
        tokenizer.save(&folder.0).unwrap();
        let path = |name: &str| folder.0.join(name);
        let opened = [
            Tokenizer::open(&folder.0).unwrap(),
            Tokenizer::open(path("tokenizer.json")).unwrap(),
            Tokenizer::from_files(path("vocab.json"), path("merges.txt"), &strings(special))
                .unwrap(),
        ];
        let text = format!("a{double}日本 é b{END}");
        for other in opened {
            assert_eq!(other.encode(&text).unwrap(), tokenizer.encode(&text).unwrap());
            assert_eq!(other.vocab_size(), tokenizer.vocab_size());
        }
    }
}

#[test]
fn a_folder_without_tokenizer_json_has_end_of_text_as_its_special_token() {
    let folder = Folder::new();
    gpt2().save(&folder.0).unwrap();
    std::fs::remove_file(folder.0.join("tokenizer.json")).unwrap();
    let opened = Tokenizer::open(&folder.0).unwrap();
    assert_eq!(opened.encode(END).unwrap(), [50256]);
    assert_eq!(opened.hash(), gpt2().hash());
}

#[test]
fn character_tokenizers_save_and_open() {
    let folder = Folder::new();
    let file = folder.file("corpus.txt", "hé日 <e>\"\\\n");
    for special in [&[][..], &["<e>"]] {
        let options = crate::training::options(0, special, Kind::Chars, 1);
        let (tokenizer, _) = Tokenizer::train(
            std::slice::from_ref(&file),
            &options,
            &mut kindling_core::progress::silent,
        )
        .unwrap();
        tokenizer.save(&folder.0).unwrap();
        let (vocab, merges) = (folder.0.join("vocab.json"), folder.0.join("merges.txt"));
        for opened in [
            Tokenizer::open(&folder.0).unwrap(),
            Tokenizer::from_files(vocab, merges, &strings(special)).unwrap(),
        ] {
            assert_eq!(opened.kind(), Kind::Chars);
            assert_eq!(opened.hash(), tokenizer.hash());
            assert_eq!(opened.encode("é<e>\n").unwrap(), tokenizer.encode("é<e>\n").unwrap());
        }
    }
}

#[test]
fn file_names_version_line_and_line_endings_do_not_matter() {
    let folder = Folder::new();
    let vocab =
        folder.file("vocabulary.txt", text("train-bpe-reference-vocab.json").replace('\n', "\r\n"));
    let lines = text("train-bpe-reference-merges.txt");
    let plain = Tokenizer::from_files(&vocab, folder.file("m", &lines), &strings(&[END])).unwrap();
    let versioned = format!("#version: 0.2\n{lines}").replace('\n', "\r\n");
    let windows =
        Tokenizer::from_files(&vocab, folder.file("m.bpe", versioned), &strings(&[END])).unwrap();
    assert_eq!(plain.num_merges(), 243);
    assert_eq!(plain.hash(), windows.hash());
}

#[test]
fn a_merge_of_number_signs_is_not_a_version_line() {
    let folder = Folder::new();
    let mut entries: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    for byte in 0..=255u8 {
        let id = entries.len();
        entries.insert(kindling_core::tokenizer::byte_chars::to_text(&[byte]), id.into());
    }
    entries.insert("##".into(), 256.into());
    let vocab = folder.file("v.json", serde_json::Value::Object(entries).to_string());
    let tokenizer = Tokenizer::from_files(vocab, folder.file("m.txt", "# #\n"), &[]).unwrap();
    assert_eq!(tokenizer.encode("##").unwrap(), [256]);
}

#[test]
fn errors_in_malformed_files_name_the_line_or_entry() {
    let folder = Folder::new();
    let (vocab, merges) =
        (text("train-bpe-reference-vocab.json"), text("train-bpe-reference-merges.txt"));
    let reject = |vocab: &str, merges: &str, says: &str| {
        let paths = (folder.file("v.json", vocab), folder.file("m.txt", merges));
        let error = Tokenizer::from_files(paths.0, paths.1, &strings(&[END])).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_TOKENIZER", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    let lines = |replaced: usize, line: &str| {
        let mut all: Vec<&str> = merges.lines().collect();
        all[replaced - 1] = line;
        all.join("\n")
    };
    reject(&vocab, &lines(7, "q q"), "line 7");
    reject(&vocab, &lines(7, "qzzz q"), "\"qzzz\" is not in the vocabulary");
    reject(&vocab, &lines(9, "he"), "line 9");
    reject(&vocab, &lines(9, "h e n"), "line 9");
    reject(&vocab, &lines(9, "Ġ t"), "line 9");
    reject(&vocab.replace("\"!\": 1,", "\"!\": 2,"), &merges, "both have the id 2");
    reject(&vocab.replace("\"!\": 1,", "\"!\": 1000,"), &merges, "no token has the id 1");
    reject(&vocab.replace("\"!\": 1,", "\"!\": -1,"), &merges, "\"!\"");
    reject(&vocab.replace("\"!\": 1,", "\"!\": 1"), &merges, "line 4");
    reject("[]", &merges, "not a JSON object");
    reject("{}", "", "it has no tokens");
}

#[test]
fn missing_files_and_bad_special_tokens_are_coded_errors() {
    let none = PathBuf::from("no-such-file");
    let (vocab, merges) = (fixture("gpt2_vocab.json"), fixture("gpt2_merges.txt"));
    let code = |v: &PathBuf, m: &PathBuf, s: &[&str]| {
        Tokenizer::from_files(v, m, &strings(s)).unwrap_err().code()
    };
    assert_eq!(code(&none, &merges, &[]), "ERR_NOT_FOUND");
    assert_eq!(code(&vocab, &none, &[]), "ERR_NOT_FOUND");
    assert_eq!(code(&vocab, &merges, &["<e>", "<e>"]), "ERR_INVALID_ARGUMENT");
    assert_eq!(code(&vocab, &merges, &["Ġt"]), "ERR_INVALID_TOKENIZER");
    assert_eq!(Tokenizer::open(&none).unwrap_err().code(), "ERR_NOT_FOUND");
}

#[test]
fn a_tokenizer_json_with_unsupported_settings_is_rejected() {
    let folder = Folder::new();
    let whole: serde_json::Value = serde_json::from_str(&text("hugging_face.json")).unwrap();
    let reject = |pointer: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let path = folder.file("tokenizer.json", changed.to_string());
        let error = Tokenizer::open(path).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_TOKENIZER", "{pointer}: {error}");
    };
    reject("/model/type", "WordPiece".into());
    reject("/model/vocab", serde_json::Value::Null);
    reject("/model/byte_fallback", true.into());
    reject("/model/merges/3", "Ġq zz".into());
    reject("/normalizer", serde_json::json!({"type": "NFKC"}));
    reject("/pre_tokenizer", serde_json::Value::Null);
    reject("/pre_tokenizer/add_prefix_space", true.into());
    reject("/pre_tokenizer/use_regex", false.into());
    reject("/decoder", serde_json::json!({"type": "WordPiece"}));
    reject("/added_tokens/0/id", 7.into());
}
