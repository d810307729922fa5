//! Helpers of the kernel tests: seeded inputs, runs in every order, comparison with the references.
#![allow(dead_code, reason = "each test file uses its own part")]

use kindling_core::buffer::{CudaView, CudaViewMut, In, Out};
use kindling_core::cuda::Launch;
use kindling_core::dtype::Dtype;
use kindling_core::random::{Purpose, uniform};
use kindling_kernel_emulator::{Bf16, Element, Memory, ORDERS, Order, run};

/// Largest difference relative to a tensor's largest value, for f32 kernels.
pub const TOLERANCE: f64 = 2e-5;
/// The same where the result or an operand is rounded to bf16 (2^-9).
pub const BF16_TOLERANCE: f64 = 6e-3;

/// An element type of activations.
pub trait Activation: Element {
    const DTYPE: Dtype;
    const TOLERANCE: f64;
}

impl Activation for f32 {
    const DTYPE: Dtype = Dtype::F32;
    const TOLERANCE: f64 = TOLERANCE;
}

impl Activation for Bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    const TOLERANCE: f64 = BF16_TOLERANCE;
}

/// Returns `len` numbers in [-spread, spread) from `seed`, rounded to T.
pub fn random<T: Element>(seed: u64, len: usize, spread: f64) -> Vec<T> {
    let number = |i| ((2.0 * uniform(seed, Purpose::Benchmark, 0, i as u32) - 1.0) * spread) as f32;
    (0..len).map(|i| T::from_f32(number(i))).collect()
}

pub fn wide<T: Element>(x: &[T]) -> Vec<f64> {
    x.iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Views memory as an input of an op.
pub fn view<T: Activation>(memory: &Memory<T>) -> In<'_> {
    In::Cuda(CudaView::new(memory.address(), memory.values().len(), T::DTYPE))
}

/// Views memory as an output of an op.
pub fn view_mut<T: Activation>(memory: &Memory<T>) -> Out<'_> {
    Out::Cuda(CudaViewMut::new(memory.address(), memory.values().len(), T::DTYPE))
}

/// Runs a launch that must succeed.
#[track_caller]
pub fn launch(launch: &Launch, order: Order) {
    if let Err(message) = run(launch, order) {
        panic!("{order:?}: {message}");
    }
}

/// Returns the results of a pass, which must have the same bits in every order of threads and
/// blocks.
#[track_caller]
pub fn in_every_order(pass: impl Fn(Order) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let first = pass(ORDERS[0]);
    for order in &ORDERS[1..] {
        for (index, (a, b)) in first.iter().zip(pass(*order)).enumerate() {
            let differs = a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits());
            if let Some(at) = differs {
                panic!("result {index} differs at {at} in order {order:?}: {} {}", a[at], b[at]);
            }
        }
    }
    first
}

pub fn relative_error(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let difference = actual.iter().zip(expected).fold(0.0f64, |m, (a, e)| {
        let d = (f64::from(*a) - e).abs();
        if d.is_nan() { f64::INFINITY } else { m.max(d) }
    });
    if largest == 0.0 { difference } else { difference / largest }
}

#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    let error = relative_error(actual, expected);
    assert!(error <= tolerance, "{what}: relative error {error}");
}

/// Returns slopes of sum(f(x) weights) at up to 24 elements spread over x, by central differences.
pub fn slopes(x: &[f64], weights: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<(usize, f64)> {
    let step = 1e-5;
    let mut moved = x.to_vec();
    let mut slope = |i: usize| {
        let mut at = |value: f64| {
            moved[i] = value;
            f(&moved).iter().zip(weights).map(|(o, w)| o * w).sum::<f64>()
        };
        let slope = (at(x[i] + step) - at(x[i] - step)) / (2.0 * step);
        moved[i] = x[i];
        slope
    };
    (0..x.len()).step_by(x.len().div_ceil(24).max(1)).map(|i| (i, slope(i))).collect()
}

/// Compares a gradient with the elements found by `slopes`.
#[track_caller]
pub fn assert_slopes(what: &str, gradient: &[f32], slopes: &[(usize, f64)], tolerance: f64) {
    let largest = gradient.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    for &(i, slope) in slopes {
        let error = (f64::from(gradient[i]) - slope).abs() / largest.max(slope.abs()).max(1e-30);
        // Finite differences in f64 lose half the digits.
        assert!(
            error < tolerance.max(1e-4),
            "{what}[{i}]: {} where the slope is {slope}",
            gradient[i]
        );
    }
}

/// Copies `values` to `offset` elements past a multiple of 16 bytes.
pub fn memory<T: Element>(values: &[T], offset: usize) -> Memory<T> {
    Memory::at_offset(values, offset)
}
