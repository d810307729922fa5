//! Finds the architecture under which other programs compute the same model.

use crate::config::ModelConfig;
use crate::{Error, Result};

/// Returns the `model_type` and the class of a model in transformers.
///
/// # Errors
/// Returns `ERR_UNSUPPORTED` for a combination of options that no class has.
pub fn architecture_of(config: &ModelConfig) -> Result<(&'static str, &'static str)> {
    match (config.qkv_bias, config.qk_norm) {
        (false, false) => Ok(("llama", "LlamaForCausalLM")),
        (true, false) => Ok(("qwen2", "Qwen2ForCausalLM")),
        (false, true) => Ok(("qwen3", "Qwen3ForCausalLM")),
        (true, true) => Err(Error::Unsupported(
            "no Hugging Face or GGUF architecture has both qkv_bias and qk_norm; export as \
             safetensors, or train without one of them"
                .to_owned(),
        )),
    }
}

/// Drops an explicit head size that equals `d_model / num_heads`, as a config made here has none.
pub fn without_default_head_size(config: ModelConfig) -> ModelConfig {
    let share = config.d_model.checked_div(config.num_heads);
    let is_default = config
        .head_size
        .is_some_and(|size| Some(size) == share && config.d_model.is_multiple_of(config.num_heads));
    if is_default { ModelConfig { head_size: None, ..config } } else { config }
}
