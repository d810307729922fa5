//! Tests the logits of prompts and of decode steps, alone and in a batch, against those of whole
//! passes.

use std::sync::Arc;

use super::kv_cache::{CacheStep, KvCache};
use super::transformer::Transformer;
use crate::config::ModelConfig;
use crate::cpu::{Cpu, MatmulBackend, MatmulKernel};
use crate::device::Device;
use crate::simd::Isa;

const WINDOW: usize = 70;
/// Lengths of the prompts of a batch: a single token, lengths below and above the limit of the
/// products for few rows, and one with which the decode steps of the test fill the cache.
const LENGTHS: [usize; 9] = [1, 40, 3, 66, 7, 2, 33, 50, 12];

/// Sizes that are multiples neither of a vector nor of the blocks of matrix products.
fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 203,
        d_model: 72,
        num_heads: 6,
        num_kv_heads: 2,
        d_ff: 101,
        num_layers: 3,
        max_seq_length: WINDOW,
        theta: 10_000.0,
        qkv_bias: true,
        ..ModelConfig::PLAIN
    }
}

fn models() -> Vec<Transformer> {
    let f32 = Isa::available().into_iter().map(|isa| (isa, MatmulBackend::Gemm));
    let kernels = MatmulKernel::available().into_iter().map(MatmulBackend::Packed);
    let packed = kernels.map(|kernel| (Isa::detect(), kernel));
    let model = |(isa, matmul)| {
        let device = Device::Cpu(Arc::new(Cpu::new(2, isa, matmul)));
        Transformer::new(config(), device, 3).unwrap()
    };
    f32.chain(packed).map(model).collect()
}

fn tokens(row: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * i + 17 * i + 31 * row) % 203) as u32).collect()
}

fn prefill(model: &mut Transformer, ids: &[u32], cache: Option<(&mut KvCache, usize)>) -> Vec<f32> {
    let mut logits = vec![f32::NAN; model.config().vocab_size];
    model.prefill(ids, &mut logits, cache).unwrap();
    logits
}

/// Decodes the token at `position(row)` for each of `rows`; returns the logits after each.
fn step(
    model: &mut Transformer,
    cache: &mut KvCache,
    rows: &[usize],
    position: impl Fn(usize) -> usize,
) -> Vec<f32> {
    let ids: Vec<u32> = rows.iter().map(|row| tokens(*row, WINDOW)[position(*row)]).collect();
    let mut logits = vec![f32::NAN; rows.len() * model.config().vocab_size];
    model.decode_step(&ids, &mut logits, CacheStep { cache, rows }).unwrap();
    logits
}

/// Asserts that logits differ by rounding at most: that of f32, or of activations and weights to
/// bf16.
fn assert_equal_up_to_rounding(model: &Transformer, logits: &[f32], expected: &[f32]) {
    let Device::Cpu(cpu) = model.device() else { panic!("not on the CPU") };
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let tolerance = largest * if cpu.matmul.dtype().size() == 4 { 1e-5 } else { 0.02 };
    for (at, (logit, expected)) in logits.iter().zip(expected).enumerate() {
        let error = (logit - expected).abs();
        assert!(error <= tolerance, "{:?} {at}: {logit} {expected}", cpu.matmul);
    }
}

#[test]
fn the_logits_of_a_prompt_are_the_last_ones_of_a_whole_pass() {
    for mut model in models() {
        for len in [1, 2, 5, 31, 32, 33, WINDOW] {
            let ids = tokens(0, len);
            let logits = prefill(&mut model, &ids, None);
            let whole = model.logits(&ids).unwrap();
            assert_equal_up_to_rounding(&model, &logits, &whole[whole.len() - logits.len()..]);
        }
    }
}

#[test]
fn the_logits_of_decode_steps_are_those_of_prompts_that_end_there() {
    for mut model in models() {
        let mut cache = KvCache::new(model.device(), model.config(), 1, WINDOW).unwrap();
        for prompt in [1, 36] {
            prefill(&mut model, &tokens(0, prompt), Some((&mut cache, 0)));
            for position in prompt..prompt + 30 {
                let logits = step(&mut model, &mut cache, &[0], |_| position);
                let expected = prefill(&mut model, &tokens(0, position + 1), None);
                assert_equal_up_to_rounding(&model, &logits, &expected);
            }
        }
    }
}

#[test]
fn a_row_of_a_batch_has_the_bits_it_has_alone_whatever_the_lengths_of_the_others() {
    for mut model in models() {
        let v = model.config().vocab_size;
        let rows: Vec<usize> = (0..LENGTHS.len()).collect();
        let new = |model: &Transformer| {
            KvCache::new(model.device(), model.config(), LENGTHS.len(), WINDOW).unwrap()
        };
        let (mut batch, mut alone) = (new(&model), new(&model));
        for &row in &rows {
            let ids = tokens(row, LENGTHS[row]);
            let [first, second] =
                [&mut batch, &mut alone].map(|cache| prefill(&mut model, &ids, Some((cache, row))));
            assert!(first == second);
        }
        for count in 0..4 {
            // Row 1 ends after a step, rows 0 and 5 after two.
            let left: Vec<usize> = rows
                .iter()
                .copied()
                .filter(|row| !(*row == 1 && count > 0 || [0, 5].contains(row) && count > 1))
                .collect();
            let logits = step(&mut model, &mut batch, &left, |row| LENGTHS[row] + count);
            for (&row, logits) in left.iter().zip(logits.chunks(v)) {
                let expected = step(&mut model, &mut alone, &[row], |row| LENGTHS[row] + count);
                assert!(logits == expected, "step {count}, row {row}");
            }
        }
    }
}
