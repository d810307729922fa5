//! Helpers of the op tests: seeded inputs, a device for every instruction set, comparisons, finite
//! differences and candle tensors.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod attention;
pub mod hugging_face;

use std::sync::Arc;

use candle_core::{Tensor, Var};
use kindling_core::buffer::{In, Out};
use kindling_core::cpu::{Cpu, MatmulBackend};
use kindling_core::device::Device;
use kindling_core::random::{Purpose, uniform};
use kindling_core::simd::Isa;

/// Largest error relative to a tensor's largest value. f32 sums of a thousand terms stay well below
/// it.
pub const TOLERANCE: f64 = 1e-4;
/// Largest relative error of a slope. Finite differences in f64 lose half of the digits.
pub const DIFFERENCE_TOLERANCE: f64 = 1e-4;

/// Returns `len` numbers in [-1, 1) from `seed`.
pub fn random(seed: u64, len: usize) -> Vec<f32> {
    (0..len).map(|i| (2.0 * uniform(seed, Purpose::Benchmark, 0, i as u32) - 1.0) as f32).collect()
}

/// Returns `len` numbers in [centre - spread, centre + spread) from `seed`.
pub fn random_around(seed: u64, len: usize, centre: f32, spread: f32) -> Vec<f32> {
    random(seed, len).into_iter().map(|x| centre + spread * x).collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// Returns a CPU device with the given instruction set and number of threads.
pub fn device(isa: Isa, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(threads, isa, MatmulBackend::Gemm)))
}

/// Returns a device with two threads for each instruction set of the machine.
pub fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| device(isa, 2)).collect()
}

pub fn view(x: &[f32]) -> In<'_> {
    In::from(x)
}

pub fn view_mut(x: &mut [f32]) -> Out<'_> {
    Out::from(x)
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
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64]) {
    let error = relative_error(actual, expected);
    assert!(error < TOLERANCE, "{what}: relative error {error}");
}

/// Returns the gradient of sum(f(x) weights) at x, by central differences.
pub fn finite_differences(x: &[f64], weights: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let step = 1e-5;
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            let mut at = |value: f64| {
                moved[i] = value;
                f(&moved).iter().zip(weights).map(|(o, w)| o * f64::from(*w)).sum::<f64>()
            };
            let slope = (at(x[i] + step) - at(x[i] - step)) / (2.0 * step);
            moved[i] = x[i];
            slope
        })
        .collect()
}

/// Returns (index, slope) of sum(f(x) weights) at up to 24 elements spread over x, by central
/// differences.
pub fn slopes(x: &[f32], weights: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<(usize, f64)> {
    let step = 1e-5;
    let mut moved = wide(x);
    let mut slope = |i: usize| {
        let centre = moved[i];
        let mut at = |value: f64| {
            moved[i] = value;
            f(&moved).iter().zip(weights).map(|(o, w)| o * f64::from(*w)).sum::<f64>()
        };
        let slope = (at(centre + step) - at(centre - step)) / (2.0 * step);
        moved[i] = centre;
        slope
    };
    (0..x.len()).step_by(x.len().div_ceil(24)).map(|i| (i, slope(i))).collect()
}

/// Compares a gradient with what `slopes` returned.
#[track_caller]
pub fn assert_slopes(what: &str, gradient: &[f32], slopes: &[(usize, f64)]) {
    let largest = gradient.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    for &(i, slope) in slopes {
        let error = (f64::from(gradient[i]) - slope).abs() / largest.max(slope.abs()).max(1e-30);
        assert!(
            error < DIFFERENCE_TOLERANCE,
            "{what}[{i}] is {}, but the slope is {slope}",
            gradient[i]
        );
    }
}

/// Doubles the numbers, as a second backward pass does with gradients that it adds to.
pub fn doubled(x: &[f64]) -> Vec<f64> {
    x.iter().map(|v| 2.0 * v).collect()
}

/// Returns a candle variable on the CPU, in f64.
pub fn variable(x: &[f32], shape: &[usize]) -> Var {
    Var::from_tensor(&tensor(x, shape)).unwrap()
}

/// Returns a candle tensor on the CPU, in f64.
pub fn tensor(x: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_vec(wide(x), shape, &candle_core::Device::Cpu).unwrap()
}

pub fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns candle's gradient of sum(out weights) with respect to each variable.
pub fn candle_gradients(out: &Tensor, weights: &[f32], variables: &[&Var]) -> Vec<Vec<f64>> {
    let loss = (out * tensor(weights, out.dims())).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    variables.iter().map(|v| values(gradients.get(v).expect("a gradient"))).collect()
}
