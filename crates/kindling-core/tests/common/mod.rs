//! What the op tests share: seeded inputs, devices of every instruction set, comparison, finite differences, candle tensors.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use candle_core::{Tensor, Var};
use kindling_core::buffer::{In, Out};
use kindling_core::cpu::{Cpu, MatmulBackend};
use kindling_core::device::Device;
use kindling_core::random::{Purpose, uniform};
use kindling_core::simd::Isa;

/// Largest difference over largest value, a tensor at a time; f32 sums of a thousand terms stay well below it.
pub const TOLERANCE: f64 = 1e-4;
/// Finite differences in f64 lose half the digits.
pub const DIFFERENCE_TOLERANCE: f64 = 1e-4;

/// `len` numbers in [-1, 1), the same for the same seed.
pub fn random(seed: u64, len: usize) -> Vec<f32> {
    (0..len).map(|i| (2.0 * uniform(seed, Purpose::Benchmark, 0, i as u32) - 1.0) as f32).collect()
}

/// As `random`, scaled and shifted.
pub fn random_around(seed: u64, len: usize, centre: f32, spread: f32) -> Vec<f32> {
    random(seed, len).into_iter().map(|x| centre + spread * x).collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// A processor of a fixed instruction set and number of threads.
pub fn device(isa: Isa, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(threads, isa, MatmulBackend::F32)))
}

/// Every instruction set of the machine, with two threads.
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

/// Gradient of sum(f(x) weights) at x by central differences.
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

/// Slopes of sum(f(x) weights) at up to 24 elements spread over x, by central differences.
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

/// Holds a gradient against some of its elements found by `slopes`.
#[track_caller]
pub fn assert_slopes(what: &str, gradient: &[f32], slopes: &[(usize, f64)]) {
    let largest = gradient.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    for &(i, slope) in slopes {
        let error = (f64::from(gradient[i]) - slope).abs() / largest.max(slope.abs()).max(1e-30);
        assert!(
            error < DIFFERENCE_TOLERANCE,
            "{what}[{i}]: {} where the slope is {slope}",
            gradient[i]
        );
    }
}

/// The numbers twice as large: what a gradient that is added to holds after a second pass.
pub fn doubled(x: &[f64]) -> Vec<f64> {
    x.iter().map(|v| 2.0 * v).collect()
}

/// A candle variable on the processor, in f64.
pub fn variable(x: &[f32], shape: &[usize]) -> Var {
    Var::from_tensor(&tensor(x, shape)).unwrap()
}

/// A candle tensor on the processor, in f64.
pub fn tensor(x: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_vec(wide(x), shape, &candle_core::Device::Cpu).unwrap()
}

pub fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Candle's gradient of sum(out weights) for each variable.
pub fn candle_gradients(out: &Tensor, weights: &[f32], variables: &[&Var]) -> Vec<Vec<f64>> {
    let loss = (out * tensor(weights, out.dims())).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    variables.iter().map(|v| values(gradients.get(v).expect("a gradient"))).collect()
}
