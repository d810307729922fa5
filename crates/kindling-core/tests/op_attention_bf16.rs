//! Attention with bf16 products, by every kernel that the machine runs, including the emulated
//! tiles, against candle's autograd in f64; and f32 attention over a long context against plain
//! sums.

mod common;

use std::sync::Arc;

use common::attention::{bits, candle_attention, forward_backward};
use common::*;
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::attention::Shape;
use kindling_core::simd::Isa;

/// Largest error relative to a tensor's largest value. A bf16 has eight significant bits, so the
/// operands are off by 2^-9 at most, and the sums of their products by less than twice that.
const BF16_TOLERANCE: f64 = 0.01;
/// Largest relative error of a whole tensor, as a root mean square.
const RMS_TOLERANCE: f64 = 0.005;

fn shape(batch: usize, positions: usize, heads: [usize; 2], head_size: usize) -> Shape {
    Shape { batch, positions, num_heads: heads[0], num_kv_heads: heads[1], head_size }
}

/// Returns qkv and dout.
fn inputs(s: Shape) -> [Vec<f32>; 2] {
    let rows = s.batch * s.positions;
    let qkv = random(1, rows * s.qkv_width()).iter().map(|v| 2.0 * v).collect();
    [qkv, random(2, rows * s.out_width())]
}

fn kernels() -> impl Iterator<Item = MatmulKernel> {
    MatmulKernel::available().into_iter().filter(|kernel| kernel.dtype() == Dtype::Bf16)
}

fn device_of(kernel: MatmulKernel, isa: Isa, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(threads, isa, MatmulBackend::Packed(kernel))))
}

fn widest() -> Isa {
    *Isa::available().last().expect("scalar at least")
}

#[track_caller]
fn assert_within_rounding(what: &str, actual: &[f32], expected: &[f64]) {
    let largest = relative_error(actual, expected);
    let squares = |x: f64| x * x;
    let error: f64 = actual.iter().zip(expected).map(|(a, e)| squares(f64::from(*a) - e)).sum();
    let norm: f64 = expected.iter().copied().map(squares).sum();
    let rms = (error / norm).sqrt();
    assert!(largest < BF16_TOLERANCE && rms < RMS_TOLERANCE, "{what}: {largest}, rms {rms}");
    // If the result were as exact as f32, the products would not be in bf16.
    assert!(rms > 1e-5, "{what}: rms {rms}");
}

#[test]
fn bf16_attention_is_within_the_rounding_of_its_operands() {
    for s in [
        shape(1, 33, [1, 1], 6),
        shape(2, 64, [2, 2], 32),
        shape(1, 129, [2, 1], 32),
        shape(1, 100, [2, 2], 64),
        shape(1, 65, [4, 2], 24),
        shape(1, 50, [3, 1], 48),
        shape(1, 97, [2, 1], 80),
        shape(1, 70, [2, 1], 128),
        shape(1, 40, [1, 1], 17),
    ] {
        let [qkv, dout] = inputs(s);
        let candle_qkv = variable(&qkv, &[s.batch * s.positions, s.qkv_width()]);
        let candle_out = candle_attention(&candle_qkv, s);
        let oracle = candle_gradients(&candle_out, &dout, &[&candle_qkv]);
        for kernel in kernels() {
            let [out, _, dqkv] = forward_backward(&device_of(kernel, widest(), 2), &qkv, &dout, s);
            let name = format!("{} {s:?}", kernel.name());
            assert_within_rounding(&format!("out {name}"), &out, &values(&candle_out));
            assert_within_rounding(&format!("dqkv {name}"), &dqkv, &oracle[0]);
        }
    }
}

#[test]
fn bf16_attention_has_the_same_bits_for_any_number_of_threads() {
    let s = shape(2, 70, [4, 2], 16);
    let [qkv, dout] = inputs(s);
    for kernel in kernels() {
        let run = |threads| {
            bits(&forward_backward(&device_of(kernel, widest(), threads), &qkv, &dout, s))
        };
        let one = run(1);
        assert!([2, 3].into_iter().all(|threads| run(threads) == one), "{}", kernel.name());
    }
}

#[test]
fn bf16_attention_does_not_look_ahead() {
    let s = shape(1, 100, [2, 1], 8);
    let [qkv, dout] = inputs(s);
    for kernel in kernels() {
        let dev = device_of(kernel, widest(), 1);
        let [before, ..] = forward_backward(&dev, &qkv, &dout, s);
        for position in [1, 15, 16, 17, 31, 32, 63, 64, 99] {
            let mut changed = qkv.clone();
            changed[position * s.qkv_width()..].iter_mut().for_each(|x| *x = 50.0 - *x);
            let [after, ..] = forward_backward(&dev, &changed, &dout, s);
            let (past, future) = after.split_at(position * s.out_width());
            let same = past == &before[..past.len()] && future != &before[past.len()..];
            assert!(same, "{} {position}", kernel.name());
        }
    }
}

#[test]
fn bf16_attention_ignores_what_scratch_memory_held() {
    let (small, large) = (shape(1, 35, [2, 1], 6), shape(1, 140, [1, 1], 34));
    let [qkv, dout] = inputs(small);
    let nan = |width: usize| vec![f32::NAN; 140 * width];
    for kernel in kernels() {
        for isa in [Isa::available()[0], widest()] {
            let dev = device_of(kernel, isa, 1);
            let clean = bits(&forward_backward(&dev, &qkv, &dout, small));
            forward_backward(&dev, &nan(large.qkv_width()), &nan(large.out_width()), large);
            assert!(bits(&forward_backward(&dev, &qkv, &dout, small)) == clean);
            assert!(clean.iter().all(|bits| f32::from_bits(*bits).is_finite()));
        }
    }
}

/// Only a few queries have a gradient, which keeps the oracle's sums short.
#[test]
fn a_context_of_4096_matches_plain_sums() {
    let s = shape(1, 4096, [1, 1], 32);
    let (hs, width, scale) = (s.head_size, s.qkv_width(), (s.head_size as f64).sqrt());
    let [qkv, mut dout] = inputs(s);
    let queries = [0, 63, 64, 1000, 4095];
    for (t, row) in dout.chunks_mut(hs).enumerate() {
        if !queries.contains(&t) {
            row.fill(0.0);
        }
    }
    let part = |t: usize, part: usize| wide(&qkv[t * width + part * hs..][..hs]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut expected_out, mut expected) = (vec![], vec![0.0; qkv.len()]);
    for t in queries {
        let (q, dout) = (part(t, 0), wide(&dout[t * hs..][..hs]));
        let weights: Vec<f64> =
            (0..=t).map(|past| (dot(&q, &part(past, 1)) / scale).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; hs];
        for (past, weight) in weights.iter().enumerate() {
            let v = part(past, 2);
            out.iter_mut().zip(v).for_each(|(out, v)| *out += weight / sum * v);
        }
        for (past, weight) in weights.iter().enumerate() {
            let (k, p) = (part(past, 1), weight / sum);
            let ds = p * (dot(&dout, &part(past, 2)) - dot(&dout, &out)) / scale;
            for i in 0..hs {
                expected[t * width + i] += ds * k[i];
                expected[past * width + hs + i] += ds * q[i];
                expected[past * width + 2 * hs + i] += p * dout[i];
            }
        }
        expected_out.extend(out);
    }
    let rows = |out: &[f32]| -> Vec<f32> {
        queries.iter().flat_map(|t| out[t * hs..][..hs].to_vec()).collect()
    };
    for isa in Isa::available().into_iter().skip(1) {
        let [out, _, dqkv] = forward_backward(&device(isa, 2), &qkv, &dout, s);
        assert_close("out", &rows(&out), &expected_out);
        assert_close("dqkv", &dqkv, &expected);
    }
    for kernel in kernels().filter(|kernel| kernel.name() != "emulated") {
        let dev = device_of(kernel, widest(), 2);
        let [out, _, dqkv] = forward_backward(&dev, &qkv, &dout, s);
        assert_within_rounding("out", &rows(&out), &expected_out);
        assert_within_rounding("dqkv", &dqkv, &expected);
    }
}
