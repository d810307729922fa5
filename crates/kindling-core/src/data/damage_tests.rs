//! Tests that damaged stores, files that are not stores, and chunks that change are reported.

use std::path::Path;

use super::files::chunk_name;
use super::tests::{draw, fixture, tokens, write};
use super::{Element, StoreWriter, TokenStore};
use crate::progress::silent;
use crate::test_support::{Folder, names};

#[test]
fn open_finds_a_flipped_bit_in_store_json_and_verify_one_in_a_chunk() {
    let root = Folder::new();
    for element in [Element::Int32, Element::Uint16] {
        let folder = root.path().join(element.name());
        let mut writer = StoreWriter::create(&folder, 10, element).unwrap();
        writer.push(&tokens(25, 11)).unwrap();
        writer.finish(|metadata| metadata.tokenizer_hash = Some("sha256:0".to_owned())).unwrap();
        assert_eq!(TokenStore::open(&folder).unwrap().verify(&mut silent).unwrap(), 3);
        for name in names(&folder) {
            let path = folder.join(&name);
            let whole = std::fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << draw(1, at as u32, 8);
                std::fs::write(&path, bytes).unwrap();
                let verified = match TokenStore::open(&folder) {
                    // store.json is verified on opening, chunks on demand.
                    Ok(_) if name == "store.json" => Ok(0),
                    opened => opened.and_then(|store| store.verify(&mut silent)),
                };
                let error = verified.expect_err(&format!("{name} byte {at}"));
                assert_eq!(error.code(), "ERR_INVALID_STORE");
                assert!(name == "store.json" || error.to_string().contains(&name), "{error}");
            }
            std::fs::write(&path, whole).unwrap();
        }
        TokenStore::open(&folder).unwrap().verify(&mut silent).unwrap();
    }
}

#[test]
fn opening_a_damaged_store_reports_the_damage() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 7] = [
        (
            |folder| std::fs::remove_file(folder.join(chunk_name(1))).unwrap(),
            "lacks encoded_tokens_chunk_1",
        ),
        (
            |folder| std::fs::remove_file(folder.join(chunk_name(0))).unwrap(),
            "lacks encoded_tokens_chunk_0",
        ),
        (
            |folder| std::fs::remove_file(folder.join(chunk_name(2))).unwrap(),
            "where its store.json says 25",
        ),
        (
            |folder| std::fs::write(folder.join(chunk_name(2)), [0; 19]).unwrap(),
            "not a multiple of 4",
        ),
        (
            |folder| std::fs::write(folder.join(chunk_name(1)), [0; 36]).unwrap(),
            "where a chunk has 10",
        ),
        (
            |folder| std::fs::write(folder.join(chunk_name(2)), [0; 44]).unwrap(),
            "where a chunk has 10",
        ),
        (|folder| std::fs::write(folder.join("store.json"), "{").unwrap(), "store.json"),
    ];
    for (damage, said) in cases {
        let root = Folder::new();
        write(root.path(), &tokens(25, 12), 10);
        damage(root.path());
        let error = TokenStore::open(root.path()).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_STORE");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn opening_anything_but_a_store_is_an_error() {
    let root = Folder::new();
    assert_eq!(TokenStore::open(root.path()).unwrap_err().code(), "ERR_INVALID_STORE");
    assert_eq!(TokenStore::open(root.path().join("none")).unwrap_err().code(), "ERR_NOT_FOUND");
    for (name, bytes) in [("odd.bin", 3), ("text.txt", 8), ("none.npy", 8)] {
        std::fs::write(root.path().join(name), vec![0; bytes]).unwrap();
        assert_eq!(
            TokenStore::open(root.path().join(name)).unwrap_err().code(),
            "ERR_INVALID_STORE",
            "{name}"
        );
    }
    let whole = std::fs::read(fixture("tokens_int32.npy")).unwrap();
    std::fs::write(root.path().join("cut.npy"), &whole[..whole.len() - 4]).unwrap();
    let error = TokenStore::open(root.path().join("cut.npy")).unwrap_err();
    assert!(
        error.to_string().contains("88 bytes of tokens, but its header says 23 tokens"),
        "{error}"
    );
}

#[test]
fn a_64_bit_value_that_is_not_an_id_is_reported() {
    let root = Folder::new();
    let mut bytes = std::fs::read(fixture("tokens_int64.npy")).unwrap();
    let last = bytes.len() - 8;
    bytes[last..].copy_from_slice(&(1i64 << 40).to_le_bytes());
    std::fs::write(root.path().join("big.npy"), bytes).unwrap();
    let store = TokenStore::open(root.path().join("big.npy")).unwrap();
    assert_eq!(store.load_by_range(0, 22).unwrap().len(), 22);
    let error = store.load_by_range(20, 23).unwrap_err();
    assert!(error.to_string().contains("1099511627776 at position 22"), "{error}");
}

#[test]
fn chunks_that_change_while_the_store_is_open_are_errors() {
    let damages: [fn(&Path, &Path); 5] = [
        |_, chunk| std::fs::File::options().write(true).open(chunk).unwrap().set_len(8).unwrap(),
        |_, chunk| std::fs::remove_file(chunk).unwrap(),
        // A new chunk of the same size.
        |_, chunk| {
            let bytes = std::fs::read(chunk).unwrap();
            std::fs::write(chunk.with_extension("new"), bytes).unwrap();
            std::fs::rename(chunk.with_extension("new"), chunk).unwrap();
        },
        // Rewritten in place, after enough time for the file system's clock to have advanced.
        |_, chunk| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(chunk, std::fs::read(chunk).unwrap()).unwrap();
        },
        // A store of the same sizes at the same path.
        |folder, _| {
            let old = folder.with_extension("old");
            if !old.exists() {
                std::fs::rename(folder, old).unwrap();
                write(folder, &tokens(40, 14), 10);
            }
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let root = Folder::new();
        let folder = root.path().join("store");
        let store = write(&folder, &tokens(40, 13), 10);
        // Chunk 1 is open, chunk 2 not yet.
        assert_eq!(store.load_by_range(0, 20).unwrap().len(), 20);
        for chunk in [1, 2] {
            damage(&folder, &folder.join(chunk_name(chunk)));
        }
        let mut reads = vec![store.load_by_range(20, 30)];
        // A deleted file that is still open keeps its contents.
        if ![1, 2, 4].contains(&number) {
            reads.push(store.load_by_range(10, 20));
            reads.push(store.token_counts(1 << 20, &mut silent).map(|_| Vec::new()));
        }
        for read in reads {
            let error = read.unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_STORE", "{number}: {error}");
            assert!(error.to_string().contains("has changed"), "{error}");
        }
    }
}
