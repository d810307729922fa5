//! Tests that damaged and hostile files are errors with a code, and take bounded memory.

use std::path::Path;

use kindling_core::exchange::{CourseSizes, ModelSource};

use super::allocations::peak_of;
use super::{Folder, fixture, import};

const HEADS: CourseSizes = CourseSizes { num_heads: Some(2), max_seq_length: None, theta: None };
/// Bytes that reading a header may take. The tensors of the fixtures have a few kilobytes.
const BOUND: usize = 4 << 20;

/// Opens a model, which must fail. Returns the code and the message.
fn failure(path: &Path) -> (&'static str, String) {
    let mut outcome = None;
    let peak = peak_of(|| outcome = Some(import(path, &HEADS)));
    assert!(peak < BOUND, "{}: {peak} bytes", path.display());
    let error = outcome.unwrap().expect_err("the file is bad");
    (error.code(), error.to_string())
}

fn assert_fails(path: &Path, code: &str, part: &str) {
    let (found, message) = failure(path);
    assert_eq!(found, code, "{message}");
    assert!(message.contains(part), "{message}");
}

/// Copies a folder of fixtures.
fn copy(name: &str, folder: &Folder) -> std::path::PathBuf {
    let to = folder.path(name);
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn files_cut_anywhere_are_errors() {
    let folder = Folder::new("cut");
    for name in ["all-types.gguf", "course.pt", "qwen3/model.safetensors"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let cut = folder.path("cut");
        let mut lengths: Vec<usize> = (0..200).map(|i| i * whole.len() / 200).collect();
        lengths.extend((0..100).chain(whole.len() - 100..whole.len()));
        for length in lengths {
            std::fs::write(&cut, &whole[..length]).unwrap();
            let (code, message) = failure(&cut);
            assert!(["ERR_INVALID_MODEL", "ERR_UNSUPPORTED"].contains(&code), "{code} {message}");
        }
    }
}

#[test]
fn files_with_any_byte_changed_never_panic_or_take_memory() {
    let folder = Folder::new("flipped");
    let file = folder.path("file");
    for (name, header) in [("all-types.gguf", 1_800), ("course.pt", 6_000)] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let end = whole.len();
        for at in (0..header.min(end)).chain(end - 1_000..end).step_by(3) {
            for value in [0, 0xFF] {
                let mut changed = whole.clone();
                changed[at] = value;
                std::fs::write(&file, &changed).unwrap();
                // The sizes of the model may have become huge, so only opening is bounded.
                let peak = peak_of(|| drop(ModelSource::open(&file, &HEADS)));
                assert!(peak < BOUND, "{name} byte {at}: {peak}");
            }
        }
    }
}

#[test]
fn hostile_counts_of_gguf_are_errors_before_memory_is_taken() {
    let folder = Folder::new("hostile");
    let path = folder.path("hostile.gguf");
    let head = |tensors: u64, values: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(values.to_le_bytes());
        bytes
    };
    let array = |kind: u32, count: u64| {
        let mut bytes = head(0, 1);
        bytes.extend(1u64.to_le_bytes());
        bytes.push(b'k');
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes
    };
    let long_key = [head(0, 1), u64::MAX.to_le_bytes().to_vec()].concat();
    let many_dimensions = {
        let mut bytes = head(1, 0);
        bytes.extend(1u64.to_le_bytes());
        bytes.push(b't');
        bytes.extend(u32::MAX.to_le_bytes());
        bytes
    };
    let files = [
        head(u64::MAX, 0),
        head(0, u64::MAX),
        head(1 << 17, 1 << 15),
        array(8, u64::MAX),
        array(8, 1 << 22),
        array(0, 1 << 40),
        // Arrays of arrays could nest without end.
        array(9, 1),
        long_key,
        many_dimensions,
    ];
    for bytes in files {
        std::fs::write(&path, bytes).unwrap();
        assert_fails(&path, "ERR_INVALID_MODEL", "hostile.gguf is damaged");
    }
    std::fs::write(&path, b"GGUF\0\0\0\x03").unwrap();
    assert_fails(&path, "ERR_UNSUPPORTED", "big-endian");
}

#[test]
fn tensors_of_gguf_that_cannot_be_read_are_named() {
    let folder = Folder::new("gguf-types");
    let whole = std::fs::read(fixture("all-types.gguf")).unwrap();
    let path = folder.path("model.gguf");
    let at = whole.windows(21).position(|part| part == b"blk.0.ffn_down.weight").unwrap();
    let mut changed = whole.clone();
    // After the name: u32 dimensions, two u64, then the type. 13 is Q5_K.
    changed[at + 21 + 4 + 16] = 13;
    std::fs::write(&path, &changed).unwrap();
    assert_fails(&path, "ERR_UNSUPPORTED", "blk.0.ffn_down.weight has type Q5_K");
    let at = whole.windows(5).position(|part| part == b"llama").unwrap();
    let mut changed = whole.clone();
    changed[at] = b'x';
    std::fs::write(&path, &changed).unwrap();
    assert_fails(&path, "ERR_UNSUPPORTED", "xlama");
}

#[test]
fn folders_with_a_missing_shard_tensor_or_dtype_say_so() {
    let folder = Folder::new("folders");
    let sharded = copy("llama-sharded", &folder);
    std::fs::remove_file(sharded.join("model-00002-of-00004.safetensors")).unwrap();
    assert_fails(&sharded, "ERR_NOT_FOUND", "model-00002-of-00004.safetensors");
    let index = sharded.join("model.safetensors.index.json");
    replace(&index, "model-00002-of-00004", "../other");
    assert_fails(&sharded, "ERR_INVALID_MODEL", "is not a valid name for a shard");

    let model = copy("llama", &folder);
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let text = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + to.len()].copy_from_slice(to);
        std::fs::write(&weights, changed).unwrap();
    };
    text(b"model.norm.weight", b"model.form.weight");
    assert_fails(
        &model,
        "ERR_INVALID_MODEL",
        "model.norm.weight is missing; model.form.weight is unexpected",
    );
    text(b"\"dtype\":\"F32\"", b"\"dtype\":\"I32\"");
    assert_fails(&model, "ERR_UNSUPPORTED", "has dtype I32");
    std::fs::write(&weights, &bytes).unwrap();
    replace(&model.join("config.json"), "\"intermediate_size\": 37", "\"intermediate_size\": 38");
    assert_fails(
        &model,
        "ERR_INVALID_MODEL",
        "mlp.down_proj.weight has shape [24, 37], not [24, 38]",
    );
    std::fs::remove_file(&weights).unwrap();
    assert_fails(&model, "ERR_NOT_FOUND", "model.safetensors");
}

#[test]
fn what_the_engine_cannot_compute_is_refused_by_name() {
    let folder = Folder::new("options");
    for (from, to, part) in [
        ("\"model_type\": \"llama\"", "\"model_type\": \"gemma3\"", "\"gemma3\" is not supported"),
        ("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "gelu"),
        ("\"attention_bias\": false", "\"attention_bias\": true", "attention_bias"),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "yarn"),
    ] {
        let model = copy("llama", &folder);
        replace(&model.join("config.json"), from, to);
        assert_fails(&model, "ERR_UNSUPPORTED", part);
    }
    let model = copy("llama", &folder);
    replace(&model.join("config.json"), "\"hidden_size\": 24", "\"hidden_size\": -24");
    assert_fails(&model, "ERR_INVALID_MODEL", "hidden_size is -24");
    std::fs::write(model.join("config.json"), "{").unwrap();
    assert_fails(&model, "ERR_INVALID_MODEL", "config.json is damaged");
    std::fs::remove_file(model.join("config.json")).unwrap();
    assert_fails(&model, "ERR_INVALID_MODEL", "no config.json");
    assert_fails(&folder.path("nothing"), "ERR_NOT_FOUND", "nothing");
    std::fs::write(folder.path("text"), "a text of some length").unwrap();
    assert_fails(
        &folder.path("text"),
        "ERR_INVALID_MODEL",
        "not a GGUF, PyTorch or safetensors file",
    );
}

/// Returns an archive with this pickle, as `torch.save` writes it.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let name = b"archive/data.pkl";
    let header = |signature: &[u8], middle: &[u8]| {
        let mut bytes = signature.to_vec();
        // Versions, flags, method, time, date and CRC, all 0; then the sizes and the length of the
        // name.
        bytes.extend(vec![0; if middle.is_empty() { 14 } else { 16 }]);
        bytes.extend((pickle.len() as u32).to_le_bytes());
        bytes.extend((pickle.len() as u32).to_le_bytes());
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(middle);
        bytes.extend(name);
        bytes
    };
    let mut bytes = header(b"PK\x03\x04", b"");
    bytes.extend(pickle);
    let start = bytes.len() as u32;
    bytes.extend(header(b"PK\x01\x02", &[0; 14]));
    let size = bytes.len() as u32 - start;
    bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    bytes.extend(size.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn pickles_that_call_anything_are_refused_and_nothing_runs() {
    let folder = Folder::new("pickle");
    let path = folder.path("model.pt");
    let marker = folder.path("ran");
    let command = format!("touch {}", marker.display());
    let os_system = [
        b"\x80\x02cposix\nsystem\nX",
        &(command.len() as u32).to_le_bytes()[..],
        command.as_bytes(),
        b"\x85R.",
    ]
    .concat();
    let deep = [vec![b')'], vec![0x85; 1 << 19], vec![b'.']].concat();
    let many = [vec![b'}'; 1 << 21], vec![b'.']].concat();
    // Recalls a long name again and again; each time it would be copied.
    let long = [
        b"X\0\0\x01\0".to_vec(),
        vec![b'a'; 1 << 16],
        b"q\0".to_vec(),
        b"h\0h\0\x93".repeat(1 << 14),
    ]
    .concat();
    for (pickle, part) in [
        (&os_system[..], "calls posix.system"),
        (b"\x80\x02cbuiltins\neval\n)R.", "calls builtins.eval"),
        (b"\x80\x02c__main__\nModel\n)\x81.", "opcode 0x81"),
        (b"\x80\x02)R.", "takes a value from an empty stack"),
        (b"\x80\x02}R.", "takes a value from an empty stack"),
        (b"\x80\x02", "ends early"),
        (b"u.", "no mark"),
        (b"(u.", "empty"),
        (b"h\x07.", "reads an empty memo slot"),
        (b"N.", "no dictionary"),
        (b"}.", "no tensors"),
        (&deep, "no dictionary"),
        (&many, "impossibly many"),
        (&long, "too long"),
    ] {
        std::fs::write(&path, archive(pickle)).unwrap();
        let mut outcome = None;
        let peak = peak_of(|| outcome = Some(ModelSource::open(&path, &HEADS)));
        let message = outcome.unwrap().expect_err(part).to_string();
        assert!(message.contains(part), "{message}");
        // The limit allows for a pickle and its nodes.
        assert!(peak < 256 << 20, "{part}: {peak}");
    }
    assert!(!marker.exists());
}
