//! Sizes too large for any memory are errors at once, without an abort, a kill or minutes of
//! paging.

use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::model::Transformer;

const CONFIG: ModelConfig = ModelConfig {
    vocab_size: 16,
    d_model: 8,
    num_heads: 2,
    num_kv_heads: 2,
    d_ff: 8,
    num_layers: 1,
    max_seq_length: 16,
    theta: 10_000.0,
    ..ModelConfig::PLAIN
};

#[test]
fn models_too_large_for_this_machine_are_refused_before_memory_is_touched() {
    for (config, code) in [
        (ModelConfig { num_layers: u32::MAX as usize, ..CONFIG }, "ERR_INVALID_CONFIG"),
        (ModelConfig { num_layers: 1_000_000_000, ..CONFIG }, "ERR_INVALID_CONFIG"),
        (ModelConfig { num_layers: 10_000_000, ..CONFIG }, "ERR_INVALID_CONFIG"),
        (ModelConfig { vocab_size: usize::MAX, ..CONFIG }, "ERR_INVALID_CONFIG"),
        (ModelConfig { max_seq_length: 1 << 25, ..CONFIG }, "ERR_INVALID_CONFIG"),
        (ModelConfig { vocab_size: 1 << 39, ..CONFIG }, "ERR_OUT_OF_MEMORY"),
        // Two tables of 2 TiB.
        (
            ModelConfig {
                max_seq_length: 1 << 24,
                d_model: 1 << 15,
                num_heads: 1,
                num_kv_heads: 1,
                ..CONFIG
            },
            "ERR_OUT_OF_MEMORY",
        ),
    ] {
        let error = Transformer::new(config.clone(), Device::cpu(1), 1).unwrap_err();
        assert_eq!(error.code(), code, "{config:?}: {error}");
    }
}

#[test]
fn a_batch_too_large_for_this_machine_is_refused_and_the_model_goes_on() {
    // Each of the 2^24 rows takes 70 KB in the blocks.
    let config = ModelConfig { num_layers: 256, max_seq_length: 1 << 16, ..CONFIG };
    let mut model = Transformer::new(config, Device::cpu(1), 1).unwrap();
    let (x, y) = (vec![1; 1 << 24], vec![2; 1 << 24]);
    let error = model.forward_backward(&x, &y, 1 << 8, 1 << 16, 1.0).unwrap_err();
    assert_eq!(error.code(), "ERR_OUT_OF_MEMORY");
    assert!(error.to_string().contains("lower batch_size"), "{error}");
    assert!(model.loss(&x[..4], &y[..4], 1, 4).unwrap().mean().is_finite());
}
