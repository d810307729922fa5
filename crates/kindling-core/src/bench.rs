//! Measures the machine: matrix products and memory bandwidth, outside of training.

use std::time::Instant;

use crate::buffer::Buffer;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::ops::{cast, grad_norm, linear};
use crate::random::{Purpose, uniform};

/// A pass of a linear layer. Each multiplies matrices in other layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearPass {
    Forward,
    BackwardInput,
    BackwardWeight,
}

impl LinearPass {
    /// Parses `forward`, `backward_input` or `backward_weight`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "forward" => Ok(Self::Forward),
            "backward_input" => Ok(Self::BackwardInput),
            "backward_weight" => Ok(Self::BackwardWeight),
            other => Err(Error::argument(format!(
                "unknown pass \"{other}\"; use forward, backward_input or backward_weight"
            ))),
        }
    }
}

/// A linear layer to time.
#[derive(Debug, Clone, Copy)]
pub struct LinearBenchmark {
    pub pass: LinearPass,
    pub shape: linear::Shape,
    /// Dtype of the operands. On the CPU they are given in f32, and rounded as they are packed.
    pub dtype: Dtype,
    /// Untimed runs before the first timed one.
    pub warmup: usize,
    /// Timed runs.
    pub repeats: usize,
}

/// Most runs queued on a GPU at once. Waiting after each would time the round trip to the GPU, too.
const QUEUED: usize = 10;

/// Times a linear layer on `device` and returns the seconds of each timed run. Runs that are queued
/// together on a GPU share their time equally.
///
/// # Errors
/// Returns `ERR_OUT_OF_MEMORY` if the device does not have enough memory, `ERR_DEVICE` if it fails.
pub fn time_linear(device: &Device, benchmark: LinearBenchmark) -> Result<Vec<f64>> {
    let LinearBenchmark { pass, shape, dtype, warmup, repeats } = benchmark;
    let x = random_operand(device, dtype, shape.rows * shape.inputs, 0)?;
    let weight = random_operand(device, dtype, shape.outputs * shape.inputs, 1)?;
    let dout = random_operand(device, dtype, shape.rows * shape.outputs, 2)?;
    let mut out = match pass {
        LinearPass::Forward => Buffer::zeros_of(device, dout.len(), device.activation_dtype())?,
        LinearPass::BackwardInput => Buffer::zeros_of(device, x.len(), device.activation_dtype())?,
        LinearPass::BackwardWeight => Buffer::zeros(device, weight.len())?,
    };
    let mut run = || {
        let (x, weight, dout, out) = (x.view(), weight.view(), dout.view(), out.view_mut());
        match pass {
            LinearPass::Forward => {
                linear::forward(device, linear::Forward { out, x, weight, bias: None, shape })
            }
            LinearPass::BackwardInput => {
                let args =
                    linear::BackwardInput { dx: out, dout, weight, shape, accumulate: false };
                linear::backward_input(device, args)
            }
            LinearPass::BackwardWeight => {
                let args = linear::BackwardWeight { dweight: out, dbias: None, dout, x, shape };
                linear::backward_weight(device, args)
            }
        }
    };
    (0..warmup).try_for_each(|_| run())?;
    let at_once = match device {
        Device::Cpu(_) => 1,
        Device::Cuda(_) => QUEUED,
    };
    let mut seconds = Vec::with_capacity(repeats);
    while seconds.len() < repeats {
        let count = at_once.min(repeats - seconds.len());
        device.synchronize()?;
        let start = Instant::now();
        (0..count).try_for_each(|_| run())?;
        device.synchronize()?;
        seconds.extend(std::iter::repeat_n(start.elapsed().as_secs_f64() / count as f64, count));
    }
    Ok(seconds)
}

/// Allocates random numbers in [-0.5, 0.5), in the dtype in which the device keeps operands. They
/// repeat after a prime number of elements, since drawing a large batch would take seconds.
fn random_operand(device: &Device, dtype: Dtype, len: usize, major: u64) -> Result<Buffer> {
    const PERIOD: usize = 1_000_003;
    let mut random: Vec<f32> = (0..len.min(PERIOD))
        .map(|i| uniform(0, Purpose::Benchmark, major, i as u32) as f32 - 0.5)
        .collect();
    while random.len() < len {
        random.extend_from_within(..PERIOD.min(len - random.len()));
    }
    let values = Buffer::of(device, &random)?;
    match device {
        Device::Cuda(gpu) if dtype == Dtype::Bf16 => {
            let rounded = Buffer::zeros_of(device, len, dtype)?;
            cast(gpu, dtype, rounded.view().pointer(), values.view().pointer(), len)?;
            Ok(rounded)
        }
        _ => Ok(values),
    }
}

/// Measures the bytes per second that `threads` threads read from memory: the best of five passes
/// over an array of 256 MiB, which no cache holds.
///
/// # Errors
/// Returns `ERR_OUT_OF_MEMORY` if there is not enough memory for the array.
pub fn memory_bandwidth(threads: usize) -> Result<f64> {
    const ELEMENTS: usize = 1 << 26;
    let device = Device::cpu(threads);
    let mut memory = Buffer::zeros(&device, ELEMENTS)?;
    memory.host_mut().fill(1.0);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        grad_norm::sum_of_squares(&device, memory.view())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok((size_of::<f32>() * ELEMENTS) as f64 / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_returns_the_seconds_of_its_timed_runs() {
        let shape = linear::Shape { rows: 3, inputs: 5, outputs: 7 };
        for name in ["forward", "backward_input", "backward_weight"] {
            let pass = LinearPass::from_name(name).unwrap();
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let benchmark = LinearBenchmark { pass, shape, dtype, warmup: 1, repeats: 2 };
                let seconds = time_linear(&Device::cpu_of(1, dtype), benchmark).unwrap();
                assert!(seconds.len() == 2 && seconds.iter().all(|seconds| *seconds > 0.0));
            }
        }
        assert_eq!(LinearPass::from_name("back").unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }
}
