//! The fixtures of `scripts/fixtures/llama_family.py`, with Hugging Face's names and layout mapped to
//! Kindling's.
//!
//! Hugging Face rotates element i of a head together with element i + hs / 2, Kindling adjacent
//! elements. So row 2 i + p of a head's q or k comes from row i + p hs / 2.

use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::model::{NamedTensor, Transformer};
use kindling_core::optim::AdamWOptions;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One model with its batch and results.
pub struct Fixture {
    pub name: String,
    pub x: Vec<u32>,
    pub targets: Vec<i32>,
    pub batch: usize,
    pub positions: usize,
    /// f32 tensors under their names in the file.
    tensors: Vec<NamedTensor>,
    about: Value,
}

/// Reads all fixtures.
pub fn fixtures() -> Vec<Fixture> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama_family");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    assert_eq!(paths.len(), 12);
    paths.iter().map(|path| Fixture::read(path)).collect()
}

fn words(data: &[u8]) -> Vec<[u8; 4]> {
    data.chunks_exact(4).map(|bytes| bytes.try_into().unwrap()).collect()
}

impl Fixture {
    fn read(path: &std::path::Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let about = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = file.tensors().into_iter().filter(|(_, view)| view.dtype() == Dtype::F32);
        let tensors = floats
            .map(|(name, view)| NamedTensor {
                name,
                shape: view.shape().to_vec(),
                data: words(view.data()).into_iter().map(f32::from_le_bytes).collect(),
            })
            .collect();
        let integers = |name: &str| -> Vec<i32> {
            words(file.tensor(name).unwrap().data()).into_iter().map(i32::from_le_bytes).collect()
        };
        let shape = file.tensor("x").unwrap().shape().to_vec();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            x: integers("x").into_iter().map(i32::cast_unsigned).collect(),
            targets: integers("targets"),
            batch: shape[0],
            positions: shape[1],
            tensors,
            about,
        }
    }

    pub fn config(&self) -> ModelConfig {
        let config = &self.about["config"];
        let size = |name: &str| config[name].as_u64().unwrap() as usize;
        let rope = &config["rope_parameters"];
        let kind = config["model_type"].as_str().unwrap();
        ModelConfig {
            vocab_size: size("vocab_size"),
            d_model: size("hidden_size"),
            num_heads: size("num_attention_heads"),
            num_kv_heads: size("num_key_value_heads"),
            d_ff: size("intermediate_size"),
            num_layers: size("num_hidden_layers"),
            max_seq_length: size("max_position_embeddings"),
            theta: rope["rope_theta"].as_f64().unwrap(),
            tie_embeddings: config["tie_word_embeddings"].as_bool().unwrap(),
            qkv_bias: kind == "qwen2",
            head_size: config["head_dim"].as_u64().map(|size| size as usize),
            norm_eps: config["rms_norm_eps"].as_f64().unwrap(),
            qk_norm: kind == "qwen3",
            rope_scaling: (rope["rope_type"] == "llama3")
                .then(|| serde_json::from_value(rope.clone()).unwrap()),
        }
    }

    /// Returns a model with the fixture's weights, built without drawing initial ones.
    pub fn model(&self, device: Device) -> Transformer {
        let mut model = Transformer::blank(self.config(), device).unwrap();
        model.load_state_dict(&self.tensors("weight.")).unwrap();
        model
    }

    /// Returns the options of the optimizer, the learning rate, and the limit of the gradients'
    /// norm.
    pub fn adamw(&self) -> (AdamWOptions, f64, f64) {
        let number = |value: &Value| value.as_f64().unwrap();
        let adamw = &self.about["adamw"];
        let options = AdamWOptions {
            betas: (number(&adamw["betas"][0]), number(&adamw["betas"][1])),
            eps: number(&adamw["eps"]),
            weight_decay: number(&adamw["weight_decay"]),
            groups: Vec::new(),
        };
        (options, number(&adamw["lr"]), number(&self.about["max_norm"]))
    }

    /// Adds the gradients of the batch. Returns its mean loss.
    pub fn forward_backward(&self, model: &mut Transformer) -> f64 {
        let (batch, positions) = (self.batch, self.positions);
        model.forward_backward(&self.x, &self.targets, batch, positions, 1.0).unwrap().mean()
    }

    /// Returns the values of a tensor that is not one of the model's.
    pub fn values(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors.iter().find(|t| t.name == name).unwrap();
        tensor.data.iter().map(|value| f64::from(*value)).collect()
    }

    /// Returns the tensors whose names start with `prefix`, under Kindling's names and in its
    /// layout.
    pub fn tensors(&self, prefix: &str) -> Vec<NamedTensor> {
        let head_size = self.config().head_size();
        let named = |t: &NamedTensor| {
            let name = t.name.strip_prefix(prefix)?;
            Some(map_tensor(name, t, head_size))
        };
        self.tensors.iter().filter_map(named).collect()
    }
}

fn map_tensor(name: &str, tensor: &NamedTensor, head_size: usize) -> NamedTensor {
    let is_rotated = name.contains("q_proj") || name.contains("k_proj") || name.contains("_norm.");
    let is_head = is_rotated && name.contains("self_attn");
    let data = if is_head { to_pairs(tensor, head_size) } else { tensor.data.clone() };
    let name = kindling_name(name);
    match tensor.shape[..] {
        [rows, columns] if name.ends_with("linear_matrix") => {
            let data = (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect();
            NamedTensor { name, shape: vec![columns, rows], data }
        }
        _ => NamedTensor { name, shape: tensor.shape.clone(), data },
    }
}

/// Reorders the rows of each head so that those of a rotated pair are adjacent.
fn to_pairs(tensor: &NamedTensor, head_size: usize) -> Vec<f32> {
    let width = tensor.data.len() / tensor.shape[0];
    let rows = (0..tensor.shape[0]).map(|row| {
        let (head, in_head) = (row / head_size, row % head_size);
        head * head_size + in_head / 2 + in_head % 2 * head_size / 2
    });
    rows.flat_map(|row| tensor.data[row * width..(row + 1) * width].to_vec()).collect()
}

fn kindling_name(name: &str) -> String {
    let pairs = [
        ("model.embed_tokens.weight", "token_embedding.embedding_matrix"),
        ("model.norm.weight", "final_norm.g"),
        ("lm_head.weight", "final_layer.linear_matrix"),
        ("model.layers.", "transformer_blocks."),
        ("input_layernorm.weight", "RMSNorm_Attn.g"),
        ("post_attention_layernorm.weight", "RMSNorm_FF.g"),
        ("self_attn.", "Multihead_Attn."),
        ("_norm.weight", "_norm.g"),
        ("mlp.gate_proj", "Feed_Forward.linear_w1"),
        ("mlp.up_proj", "Feed_Forward.linear_w3"),
        ("mlp.down_proj", "Feed_Forward.linear_w2"),
        (".weight", ".linear_matrix"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}
