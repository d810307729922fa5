//! Compares the logits of imported models with those of transformers, and exported files with the
//! imported ones.

use std::path::Path;

use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::exchange::{Companions, CourseSizes, Export, ModelSource, TensorType};
use kindling_core::model::Transformer;
use kindling_core::progress::silent;
use serde_json::Value;

use super::allocations::peak_of;
use super::{Folder, fixture, import};

/// The largest allowed difference of a logit. Logits are of size 1 to 10.
const TOLERANCE: f32 = 1e-4;

/// The models, and the element type of their files.
const MODELS: [(&str, TensorType); 12] = [
    ("llama", TensorType::F32),
    ("llama-gqa", TensorType::F16),
    ("llama-tied", TensorType::Bf16),
    ("llama-head-dim", TensorType::F32),
    ("llama-rope", TensorType::Bf16),
    ("llama-sharded", TensorType::F32),
    ("mistral", TensorType::F32),
    ("mistral-sliding", TensorType::Bf16),
    ("qwen2", TensorType::F32),
    ("qwen2-tied", TensorType::F16),
    ("qwen3", TensorType::F32),
    ("qwen3-tied", TensorType::Bf16),
];

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns the ids of a fixture, and the logits that transformers computes.
fn expected(path: &Path) -> (Vec<u32>, Vec<f32>) {
    let file = json(path);
    let list = |key: &str| file[key].as_array().unwrap().clone();
    let ids = list("ids").iter().map(|id| id.as_u64().unwrap() as u32).collect();
    (ids, list("logits").iter().map(|value| value.as_f64().unwrap() as f32).collect())
}

fn check_logits(name: &str, model: &mut Transformer, (ids, expected): &(Vec<u32>, Vec<f32>)) {
    let logits = model.logits(ids).unwrap();
    assert_eq!(logits.len(), expected.len(), "{name}");
    let difference = |(a, b): (&f32, &f32)| (a - b).abs();
    let worst = logits.iter().zip(expected).map(difference).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{name}: a logit differs by {worst}");
}

fn export(model: &Transformer, kind: TensorType, write: impl FnOnce(&Export<'_>)) {
    let companions = Companions::new();
    write(&Export { model, tokenizer: None, companions: &companions, kind, name: "test" });
}

#[test]
fn imported_models_have_the_logits_of_transformers() {
    for (name, _) in MODELS {
        let mut model = import(&fixture(name), &CourseSizes::default()).unwrap();
        check_logits(name, &mut model, &expected(&fixture(name).join("expected.json")));
    }
}

#[test]
fn a_sliding_window_limits_the_context() {
    let source = ModelSource::open(&fixture("mistral-sliding"), &CourseSizes::default()).unwrap();
    assert_eq!(source.config.max_seq_length, 16);
    let source = ModelSource::open(&fixture("mistral"), &CourseSizes::default()).unwrap();
    assert_eq!(source.config.max_seq_length, 48);
}

#[test]
fn import_and_export_give_the_same_bytes() {
    let folder = Folder::new("same-bytes");
    for (name, kind) in MODELS {
        let model = import(&fixture(name), &CourseSizes::default()).unwrap();
        let out = folder.path(name);
        export(&model, kind, |export| export.hugging_face(&out, &mut silent).unwrap());
        assert!(tensors_of(&out) == tensors_of(&fixture(name)), "{name}");
        let mut again = import(&out, &CourseSizes::default()).unwrap();
        check_logits(name, &mut again, &expected(&fixture(name).join("expected.json")));
        assert_eq!(again.config(), model.config(), "{name}");
    }
}

/// Returns the names, shapes and bytes of the tensors in a folder, whether in one file or in
/// shards.
fn tensors_of(folder: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut tensors = Vec::new();
    for file in files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
        let bytes = std::fs::read(file).unwrap();
        let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let named = parsed.tensors().into_iter();
        tensors.extend(named.map(|(name, v)| (name, v.shape().to_vec(), v.data().to_vec())));
    }
    tensors.sort();
    tensors
}

#[test]
fn gguf_files_of_every_type_have_the_logits_of_transformers() {
    let mut model = import(&fixture("all-types.gguf"), &CourseSizes::default()).unwrap();
    check_logits("all types", &mut model, &expected(&fixture("all-types.json")));
}

#[test]
fn exported_gguf_files_read_back_as_the_same_model() {
    let folder = Folder::new("gguf-again");
    for (name, _) in MODELS {
        let mut model = import(&fixture(name), &CourseSizes::default()).unwrap();
        let (ids, _) = expected(&fixture(name).join("expected.json"));
        let logits = model.logits(&ids).unwrap();
        let out = folder.path(name);
        // A scaling whose original context differs from Llama 3.1's cannot be recovered from the
        // factors.
        let is_known = !matches!(name, "llama-rope" | "llama-sharded");
        export(&model, TensorType::F32, |export| export.gguf(&out, &mut silent).unwrap());
        match import(&out, &CourseSizes::default()) {
            Ok(mut again) if is_known => {
                assert_eq!(again.config(), model.config(), "{name}");
                assert_eq!(again.logits(&ids).unwrap(), logits, "{name}");
            }
            Err(error) if !is_known => assert_eq!(error.code(), "ERR_UNSUPPORTED", "{error}"),
            other => panic!("{name}: {:?}", other.map(drop)),
        }
    }
}

#[test]
fn the_scaling_of_llama_3_survives_the_factors_of_gguf() {
    let folder = Folder::new("gguf-rope");
    let model = import(&fixture("llama-rope"), &CourseSizes::default()).unwrap();
    let mut config = model.config().clone();
    let scaling = config.rope_scaling.as_mut().unwrap();
    scaling.original_max_position_embeddings = 8192.0;
    scaling.factor = 32.0;
    config.theta = 500_000.0;
    let model = Transformer::new(config, Device::cpu(1), 1).unwrap();
    let out = folder.path("model.gguf");
    export(&model, TensorType::F16, |export| export.gguf(&out, &mut silent).unwrap());
    let source = ModelSource::open(&out, &CourseSizes::default()).unwrap();
    assert_eq!(source.config, *model.config());
}

#[test]
fn rounded_exports_stay_close() {
    let folder = Folder::new("rounded");
    let ids = [3, 1, 4, 1, 5];
    let mut model = import(&fixture("llama"), &CourseSizes::default()).unwrap();
    let expected = model.logits(&ids).unwrap();
    for (kind, tolerance) in
        [(TensorType::F16, 0.02), (TensorType::Bf16, 0.2), (TensorType::Q8_0, 0.02)]
    {
        let out = folder.path(kind.name());
        // Rows of 24 and 37 elements are not whole blocks, so with q8_0 they are stored as f16.
        export(&model, kind, |export| export.gguf(&out, &mut silent).unwrap());
        let read = import(&out, &CourseSizes::default()).unwrap().logits(&ids).unwrap();
        let worst = read.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < tolerance, "{}: {worst}", kind.name());
    }
}

#[test]
fn checkpoints_of_the_course_are_read_from_pytorch_and_safetensors() {
    let sizes = CourseSizes { num_heads: Some(2), ..CourseSizes::default() };
    let model = import(&fixture("course.pt"), &sizes).unwrap();
    assert_eq!(model.config().max_seq_length, 40, "that of the rotary table");
    let facts = json(&fixture("course.json"));
    for tensor in model.state_dict().unwrap() {
        // The course's spelling.
        let name = tensor.name.replace("Feed_Forward", "Feed_Foward");
        let sum: f64 = tensor.data.iter().map(|value| f64::from(*value)).sum();
        assert!((sum - facts["sums"][&name].as_f64().unwrap()).abs() < 1e-9, "{name}");
        let second = facts["second"][&name].as_f64().unwrap() as f32;
        assert_eq!(tensor.data[1], second, "{name}");
    }
    let folder = Folder::new("course");
    let out = folder.path("model.safetensors");
    export(&model, TensorType::F32, |export| export.safetensors(&out, &mut silent).unwrap());
    let sizes = CourseSizes { max_seq_length: Some(40), ..sizes };
    let again = import(&out, &sizes).unwrap();
    assert_eq!(again.state_dict().unwrap(), model.state_dict().unwrap());
    let error = import(&fixture("course.pt"), &CourseSizes::default()).unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
}

#[test]
fn import_and_export_hold_a_few_copies_of_the_largest_tensor() {
    let config = ModelConfig {
        vocab_size: 3_000,
        d_model: 256,
        num_heads: 4,
        num_kv_heads: 2,
        d_ff: 700,
        num_layers: 12,
        max_seq_length: 16,
        ..ModelConfig::PLAIN
    };
    let mut model = Transformer::new(config, Device::cpu(1), 1).unwrap();
    let largest = 3_000 * 256 * size_of::<f32>();
    assert!(model.num_parameters() * size_of::<f32>() > 10 * largest);
    let folder = Folder::new("memory");
    for (name, is_gguf) in [("hugging-face", false), ("model.gguf", true)] {
        let out = folder.path(name);
        let written = peak_of(|| {
            export(&model, TensorType::F32, |export| {
                if is_gguf {
                    export.gguf(&out, &mut silent)
                } else {
                    export.hugging_face(&out, &mut silent)
                }
                .unwrap();
            });
        });
        let mut source = ModelSource::open(&out, &CourseSizes::default()).unwrap();
        let read = peak_of(|| source.read_into(&mut model, &mut silent).unwrap());
        let limit = 2 * largest + (2 << 20);
        assert!(written < limit && read < limit, "{name}: {written} {read}");
        // Importing allocates neither gradients nor a second set of weights.
        let whole = peak_of(|| drop(import(&out, &CourseSizes::default()).unwrap()));
        let weights = model.num_parameters() * size_of::<f32>();
        assert!(whole < weights + limit, "{name}: {whole}");
    }
}
