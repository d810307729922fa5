//! Derives the sizes of a model from the shapes of its tensors. The course's checkpoints, in
//! PyTorch or safetensors files, have no configuration.

use std::path::Path;

use super::architecture::without_default_head_size;
use super::tensor_files::{TensorFiles, damaged};
use crate::config::ModelConfig;
use crate::{Error, Result};

/// Sizes that the shapes of the tensors do not give.
#[derive(Debug, Clone, Copy, Default)]
pub struct CourseSizes {
    /// Query heads.
    pub num_heads: Option<usize>,
    /// Longest context in tokens. Default: that of the rotary tables in the file, else 512.
    pub max_seq_length: Option<usize>,
    /// Base of the rotary angles. Default 100000.
    pub theta: Option<f64>,
}

/// Derives the sizes from the tensors in `files`. Renames misspelt tensors (`Feed_Foward`) and
/// drops rotary tables.
///
/// # Errors
/// Returns `ERR_INVALID_MODEL` if a tensor is missing or not a matrix, `ERR_INVALID_ARGUMENT`
/// without `num_heads`, `ERR_INVALID_CONFIG` if the sizes contradict each other.
pub(super) fn config_of(
    path: &Path,
    files: &mut TensorFiles,
    sizes: &CourseSizes,
) -> Result<ModelConfig> {
    let misspelt: Vec<String> =
        files.entries().keys().filter(|name| name.contains("Feed_Foward")).cloned().collect();
    for name in misspelt {
        files.rename(&name, name.replace("Feed_Foward", "Feed_Forward"));
    }
    let table = files.entries().iter().find(|(name, _)| name.ends_with("rope.cos_values"));
    let table_context = table.and_then(|(_, entry)| entry.shape.first().copied());
    files.retain(|name| !name.ends_with("rope.cos_values") && !name.ends_with("rope.sin_values"));
    let shape = |name: &str| match files.get(name).map(|entry| &entry.shape[..]) {
        Some([rows, columns]) => Ok((*rows, *columns)),
        Some(_) => Err(damaged(path, format_args!("{name} is not a matrix"))),
        None => Err(damaged(path, format_args!("it has no {name}"))),
    };
    let block = "transformer_blocks.0";
    let (vocab_size, d_model) = shape("token_embedding.embedding_matrix")?;
    let (_, q_width) = shape(&format!("{block}.Multihead_Attn.q_proj.linear_matrix"))?;
    let (_, kv_width) = shape(&format!("{block}.Multihead_Attn.k_proj.linear_matrix"))?;
    let (_, d_ff) = shape(&format!("{block}.Feed_Forward.linear_w1.linear_matrix"))?;
    let layers = files.entries().keys().filter_map(|name| {
        name.strip_prefix("transformer_blocks.")?.split('.').next()?.parse::<usize>().ok()
    });
    let num_layers = layers.max().map_or(0, |last| last.saturating_add(1));
    let Some(num_heads) = sizes.num_heads.filter(|heads| *heads > 0) else {
        return Err(Error::argument(format!(
            "{} does not say how many heads its model has; give num_heads (--num-heads)",
            path.display()
        )));
    };
    let head_size = q_width / num_heads;
    let is_whole = |width: usize| head_size > 0 && width.is_multiple_of(head_size);
    if head_size * num_heads != q_width || !is_whole(kv_width) {
        return Err(Error::InvalidConfig(format!(
            "queries of width {q_width} and keys of width {kv_width} do not divide into \
             {num_heads} heads; give another num_heads"
        )));
    }
    let config = ModelConfig {
        vocab_size,
        d_model,
        num_heads,
        num_kv_heads: kv_width / head_size,
        d_ff,
        num_layers,
        max_seq_length: sizes.max_seq_length.or(table_context).unwrap_or(512),
        theta: sizes.theta.unwrap_or(ModelConfig::PLAIN.theta),
        tie_embeddings: files.get("final_layer.linear_matrix").is_none(),
        qkv_bias: files.get(&format!("{block}.Multihead_Attn.q_proj.bias")).is_some(),
        head_size: Some(head_size),
        qk_norm: files.get(&format!("{block}.Multihead_Attn.q_norm.g")).is_some(),
        ..ModelConfig::PLAIN
    };
    let config = without_default_head_size(config);
    config.validate()?;
    Ok(config)
}
