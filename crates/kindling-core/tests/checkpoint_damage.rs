//! Tests of checkpoints that are damaged, old, or of another model.

use std::path::{Path, PathBuf};

use kindling_core::checkpoint;
use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer as _};
use safetensors::tensor::{Dtype, TensorView};

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 13,
        d_model: 8,
        num_heads: 2,
        num_kv_heads: 2,
        d_ff: 6,
        num_layers: 2,
        max_seq_length: 8,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    }
}

fn adamw(model: &Transformer) -> AdamW {
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, groups: Vec::new() };
    AdamW::new(model, &options).unwrap()
}

/// Saves a checkpoint after one update. Returns its folder, the model and the optimizer.
fn saved(name: &str) -> (PathBuf, Transformer, AdamW) {
    let mut model = Transformer::new(config(), Device::cpu(1), 1).unwrap();
    let mut optimizer = adamw(&model);
    model.forward_backward(&[1; 4], &[2; 4], 1, 4, 1.0).unwrap();
    optimizer.step(&mut model, 1e-3).unwrap();
    let path = std::env::temp_dir().join(format!("kindling-{name}-{}", std::process::id()));
    checkpoint::save(&path, &model, Some(&optimizer), 7, serde_json::json!({ "kept": 1 })).unwrap();
    (path, model, optimizer)
}

fn load(path: &Path) -> kindling_core::Result<u64> {
    let mut model = Transformer::new(config(), Device::cpu(1), 2).unwrap();
    let mut optimizer = adamw(&model);
    let before = (model.state_dict()?, optimizer.state(&model)?);
    let loaded = checkpoint::load(path, &mut model, Some(&mut optimizer));
    if loaded.is_err() {
        assert!((model.state_dict()?, optimizer.state(&model)?) == before, "loaded in part");
    }
    Ok(loaded?.iteration)
}

/// Returns the next number of a small generator (Marsaglia's xorshift).
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let (path, ..) = saved("damage");
    let mut state = 0x9E37_79B9_7F4A_7C15;
    for name in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let file = path.join(name);
        let whole = std::fs::read(&file).unwrap();
        let damaged = |bytes: &[u8], what: &str| {
            std::fs::write(&file, bytes).unwrap();
            let error = load(&path).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_CHECKPOINT", "{name} {what}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        };
        for _ in 0..1_000 {
            let (at, bit) = (random(&mut state) % whole.len(), random(&mut state) % 8);
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            damaged(&bytes, &format!("bit {bit} of byte {at}"));
        }
        for _ in 0..200 {
            let length = random(&mut state) % whole.len();
            damaged(&whole[..length], &format!("of {length} bytes"));
        }
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(load(&path).unwrap(), 7);
    }
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn a_damaged_tensor_is_named_with_its_file() {
    let (path, ..) = saved("named");
    let file = path.join("optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let message = load(&path).unwrap_err().to_string();
    let last = "v.transformer_blocks.1.RMSNorm_FF.g";
    assert!(message.contains("optimizer.safetensors") && message.contains(last), "{message}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(load(&path).unwrap_err().code(), "ERR_NOT_FOUND");
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn checkpoints_without_checksums_still_load() {
    let (path, model, optimizer) = saved("old");
    let file = path.join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for key in ["files", "checksum"] {
        assert!(state.as_object_mut().unwrap().remove(key).is_some());
    }
    std::fs::write(&file, state.to_string()).unwrap();
    let mut other = Transformer::new(config(), Device::cpu(1), 2).unwrap();
    let mut empty = adamw(&other);
    checkpoint::load(&path, &mut other, Some(&mut empty)).unwrap();
    assert!(other.state_dict().unwrap() == model.state_dict().unwrap());
    assert!(empty.state(&other).unwrap() == optimizer.state(&model).unwrap());
    assert_eq!(empty.steps(), 1);
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn a_model_that_differs_in_more_than_its_shapes_is_refused() {
    let (path, ..) = saved("differs");
    for (other, expected) in [
        (ModelConfig { num_heads: 4, num_kv_heads: 4, ..config() }, "num_heads is 2 in the check"),
        (
            ModelConfig { theta: 500.0, ..config() },
            "theta is 10000.0 in the checkpoint but 500.0 in",
        ),
        (ModelConfig { d_ff: 8, ..config() }, "d_ff is 6 in the checkpoint but 8 in the model; "),
        (ModelConfig { d_ff: 8, ..config() }, "linear_w1.linear_matrix has shape [8, 6]"),
    ] {
        let mut model = Transformer::new(other, Device::cpu(1), 1).unwrap();
        let error = checkpoint::load(&path, &mut model, None).unwrap_err();
        assert_eq!(error.code(), "ERR_CHECKPOINT_MISMATCH");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // The rotation tables of a longer context begin with those of a shorter one.
    let longer = ModelConfig { max_seq_length: 9, ..config() };
    let mut model = Transformer::new(longer, Device::cpu(1), 1).unwrap();
    checkpoint::load(&path, &mut model, None).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn the_files_are_those_of_the_safetensors_crate() {
    let (path, model, optimizer) = saved("bytes");
    let tensors = [
        ("model.safetensors", model.state_dict().unwrap()),
        ("optimizer.safetensors", optimizer.state(&model).unwrap()),
    ];
    for (name, tensors) in tensors {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|t| t.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|(t, bytes)| {
            (t.name.as_str(), TensorView::new(Dtype::F32, t.shape.clone(), bytes).unwrap())
        });
        let about = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
        let expected = safetensors::serialize(views, Some(about)).unwrap();
        assert!(std::fs::read(path.join(name)).unwrap() == expected, "{name}");
    }
    std::fs::remove_dir_all(&path).unwrap();
}
