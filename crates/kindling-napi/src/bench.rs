//! What the machine has, and the product of matrices timed alone.

use std::time::Instant;

use kindling_core::buffer::Buffer;
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::matmul::packed::Kernel;
use kindling_core::ops::{grad_norm, linear};
use kindling_core::random::{Purpose, uniform};
use kindling_core::simd::Isa;
use kindling_core::{Error, Result};
use napi::bindgen_prelude::AsyncTask;

use crate::error::to_napi;
use crate::options::size;
use crate::task::{Job, spawn};

/// Cores this process may use.
#[napi]
pub fn available_threads() -> u32 {
    kindling_core::pool::available_threads() as u32
}

/// Instruction set of the CPU engine's inner loops: `scalar`, `avx2` or `avx512`.
#[napi]
pub fn instruction_set() -> &'static str {
    Isa::detect().name()
}

/// Number of CUDA devices that this build can use on this machine.
#[napi(catch_unwind)]
pub fn cuda_device_count() -> u32 {
    if kindling_core::cuda::problem().is_some() {
        0
    } else {
        kindling_core::cuda::device_count() as u32
    }
}

/// What keeps a GPU that seems to be there from being used; null where it can be, or where there is none.
#[napi(catch_unwind)]
pub fn cuda_problem() -> Option<String> {
    kindling_core::cuda::problem()
}

/// What multiplies bf16 on this CPU: `avx512bf16` or `amx`; null where products of bf16 are computed in f32.
#[napi]
pub fn bf16_instructions() -> Option<&'static str> {
    Kernel::detect().map(Kernel::name)
}

/// Elements read by `bench_memory`: 256 MiB, beyond any cache.
const MEMORY_ELEMENTS: usize = 1 << 26;

/// Bytes a second that `threads` threads read from memory: the best of five passes over a large array.
#[napi(ts_return_type = "Promise<number>")]
pub fn bench_memory(threads: f64) -> napi::Result<AsyncTask<Job<(), f64>>> {
    let threads = size("threads", threads).map_err(to_napi)?;
    Ok(spawn((), move |()| {
        let device = Device::cpu(threads);
        let mut memory = Buffer::zeros(&device, MEMORY_ELEMENTS)?;
        memory.host_mut().fill(1.0);
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            grad_norm::sum_of_squares(&device, memory.view())?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(size_of::<f32>() as f64 * MEMORY_ELEMENTS as f64 / best)
    }))
}

/// One product to time: the linear layer of `rows` x `inputs` to `outputs`.
#[napi(object)]
pub struct GemmOptions {
    /// Rows of x.
    pub rows: f64,
    /// Columns of x.
    pub inputs: f64,
    /// Columns of the result.
    pub outputs: f64,
    /// `forward`, `backward_input` or `backward_weight`: the three layouts of a training step.
    #[napi(ts_type = "'forward' | 'backward_input' | 'backward_weight'")]
    pub pass: String,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// On cuda, products of f32 may be rounded to TensorFloat-32.
    pub tf32: bool,
    /// Threads; 0: the cores this process may use.
    pub threads: f64,
    /// Runs before the clock starts.
    pub warmup: u32,
    /// Runs timed.
    pub repeats: u32,
}

/// Seconds of each timed run.
type Seconds = Vec<f64>;

/// Times a product; gives the seconds of each run.
#[napi(ts_return_type = "Promise<Array<number>>")]
pub fn bench_gemm(options: GemmOptions) -> napi::Result<AsyncTask<Job<(), Seconds>>> {
    let shape = (|| {
        Ok(linear::Shape {
            rows: size("rows", options.rows)?.max(1),
            inputs: size("inputs", options.inputs)?.max(1),
            outputs: size("outputs", options.outputs)?.max(1),
        })
    })()
    .map_err(to_napi)?;
    let threads = size("threads", options.threads).map_err(to_napi)?;
    let dtype = Dtype::from_name(&options.dtype).map_err(to_napi)?;
    let pass = Pass::from_name(&options.pass).map_err(to_napi)?;
    Ok(spawn((), move |()| {
        let device = Device::from_name(&options.device, threads, dtype, options.tf32)?;
        // Operands come as the device keeps them; the CPU rounds f32 as it reads.
        let operand = |len, major| -> Result<Buffer> {
            let values = Buffer::of(&device, &random(len, major))?;
            let Device::Cuda(gpu) = &device else { return Ok(values) };
            let rounded = Buffer::zeros_of(&device, len, dtype)?;
            if dtype == Dtype::F32 {
                return Ok(values);
            }
            gpu.cast(dtype, rounded.view().pointer(), values.view().pointer(), len)?;
            Ok(rounded)
        };
        let x = operand(shape.rows * shape.inputs, 0)?;
        let weight = operand(shape.outputs * shape.inputs, 1)?;
        let dout = operand(shape.rows * shape.outputs, 2)?;
        let mut out = match pass {
            Pass::Forward => Buffer::zeros_of(&device, dout.len(), device.activation_dtype())?,
            Pass::BackwardInput => Buffer::zeros_of(&device, x.len(), device.activation_dtype())?,
            Pass::BackwardWeight => Buffer::zeros(&device, weight.len())?,
        };
        let mut seconds = Vec::with_capacity(options.repeats as usize);
        for run in 0..options.warmup + options.repeats {
            device.synchronize()?;
            let start = Instant::now();
            let (x, weight, dout, out) = (x.view(), weight.view(), dout.view(), out.view_mut());
            match pass {
                Pass::Forward => {
                    linear::forward(&device, linear::Forward { out, x, weight, bias: None, shape })?
                }
                Pass::BackwardInput => linear::backward_input(
                    &device,
                    linear::BackwardInput { dx: out, dout, weight, shape, accumulate: false },
                )?,
                Pass::BackwardWeight => linear::backward_weight(
                    &device,
                    linear::BackwardWeight { dweight: out, dbias: None, dout, x, shape },
                )?,
            }
            device.synchronize()?;
            if run >= options.warmup {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(seconds)
    }))
}

/// The products of a layer.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    BackwardInput,
    BackwardWeight,
}

impl Pass {
    fn from_name(name: &str) -> Result<Self> {
        match name {
            "forward" => Ok(Self::Forward),
            "backward_input" => Ok(Self::BackwardInput),
            "backward_weight" => Ok(Self::BackwardWeight),
            other => Err(Error::argument(format!("unknown pass \"{other}\""))),
        }
    }
}

fn random(len: usize, major: u64) -> Vec<f32> {
    (0..len).map(|i| uniform(0, Purpose::Benchmark, major, i as u32) as f32 - 0.5).collect()
}
