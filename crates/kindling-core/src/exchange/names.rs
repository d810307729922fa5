//! Names of the parameters in other formats, and the layout of their elements there.

use std::borrow::Cow;

use super::rotation::{to_halves, to_pairs};
use crate::config::ModelConfig;
use crate::model::Parameter;

/// A naming scheme, with the layout of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The course's: matrices are [in, out].
    Course,
    /// Hugging Face's, for Llama, Mistral, Qwen2 and Qwen3.
    HuggingFace,
    /// GGUF's, with rotation of pairs (`llama`).
    GgufPairs,
    /// GGUF's, with rotation of halves (`qwen2`, `qwen3`).
    GgufHalves,
}

/// Names of the tensors outside the blocks: the course's, Hugging Face's, GGUF's.
const OUTER: [(&str, &str, &str); 3] = [
    ("token_embedding.embedding_matrix", "model.embed_tokens.weight", "token_embd.weight"),
    ("final_norm.g", "model.norm.weight", "output_norm.weight"),
    ("final_layer.linear_matrix", "lm_head.weight", "output.weight"),
];

/// Names of the tensors of a block: the course's, Hugging Face's, GGUF's.
const INNER: [(&str, &str, &str); 14] = [
    ("RMSNorm_Attn.g", "input_layernorm.weight", "attn_norm.weight"),
    ("Multihead_Attn.q_proj.linear_matrix", "self_attn.q_proj.weight", "attn_q.weight"),
    ("Multihead_Attn.k_proj.linear_matrix", "self_attn.k_proj.weight", "attn_k.weight"),
    ("Multihead_Attn.v_proj.linear_matrix", "self_attn.v_proj.weight", "attn_v.weight"),
    ("Multihead_Attn.q_proj.bias", "self_attn.q_proj.bias", "attn_q.bias"),
    ("Multihead_Attn.k_proj.bias", "self_attn.k_proj.bias", "attn_k.bias"),
    ("Multihead_Attn.v_proj.bias", "self_attn.v_proj.bias", "attn_v.bias"),
    ("Multihead_Attn.q_norm.g", "self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("Multihead_Attn.k_norm.g", "self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("Multihead_Attn.o_proj.linear_matrix", "self_attn.o_proj.weight", "attn_output.weight"),
    ("RMSNorm_FF.g", "post_attention_layernorm.weight", "ffn_norm.weight"),
    ("Feed_Forward.linear_w1.linear_matrix", "mlp.gate_proj.weight", "ffn_gate.weight"),
    ("Feed_Forward.linear_w3.linear_matrix", "mlp.up_proj.weight", "ffn_up.weight"),
    ("Feed_Forward.linear_w2.linear_matrix", "mlp.down_proj.weight", "ffn_down.weight"),
];

impl Naming {
    /// Returns the name of a parameter in this scheme, or `None` if the scheme has none for it.
    pub fn name_of(self, parameter: &Parameter) -> Option<String> {
        let name = parameter.name.as_str();
        let choose = |(_, hugging_face, gguf): (&str, &'static str, &'static str)| match self {
            Self::Course => None,
            Self::HuggingFace => Some(hugging_face),
            Self::GgufPairs | Self::GgufHalves => Some(gguf),
        };
        if self == Self::Course {
            return Some(name.to_owned());
        }
        if let Some(entry) = OUTER.iter().find(|(ours, _, _)| *ours == name) {
            return choose(*entry).map(str::to_owned);
        }
        let (layer, inner) = name.strip_prefix("transformer_blocks.")?.split_once('.')?;
        let theirs = choose(*INNER.iter().find(|(ours, _, _)| *ours == inner)?)?;
        let block = if self == Self::HuggingFace { "model.layers" } else { "blk" };
        Some(format!("{block}.{layer}.{theirs}"))
    }

    /// Returns the shape of a parameter in this scheme, row-major.
    pub fn shape_of(self, parameter: &Parameter) -> Vec<usize> {
        match parameter.file_shape[..] {
            [inputs, outputs] if parameter.transposed && self != Self::Course => {
                vec![outputs, inputs]
            }
            _ => parameter.file_shape.clone(),
        }
    }

    /// Converts the elements of a parameter from the layout of this scheme to that of memory.
    pub fn to_memory(
        self,
        config: &ModelConfig,
        parameter: &Parameter,
        data: Vec<f32>,
    ) -> Vec<f32> {
        match self {
            Self::Course if parameter.transposed => parameter.in_memory(&data).into_owned(),
            Self::HuggingFace | Self::GgufHalves if is_rotated(parameter) => {
                to_pairs(&data, config.head_size(), row_of(parameter))
            }
            _ => data,
        }
    }

    /// Converts the elements of a parameter from the layout of memory to that of this scheme.
    pub fn to_file<'a>(
        self,
        config: &ModelConfig,
        parameter: &Parameter,
        memory: Cow<'a, [f32]>,
    ) -> Cow<'a, [f32]> {
        match self {
            Self::Course if parameter.transposed => parameter.in_file(&memory).into_owned().into(),
            Self::HuggingFace | Self::GgufHalves if is_rotated(parameter) => {
                to_halves(&memory, config.head_size(), row_of(parameter)).into()
            }
            _ => memory,
        }
    }
}

/// Returns whether the rows of a parameter belong to queries or keys, which are rotated.
fn is_rotated(parameter: &Parameter) -> bool {
    let mut parts = parameter.name.rsplit('.').skip(1);
    matches!(parts.next(), Some("q_proj" | "k_proj" | "q_norm" | "k_norm"))
}

/// Returns the number of elements in a row of memory: the inputs of a matrix, 1 for a vector.
fn row_of(parameter: &Parameter) -> usize {
    if parameter.is_matrix() { parameter.file_shape[0] } else { 1 }
}
