//! What the machine has, and the product of matrices timed alone.

use std::time::Instant;

use kindling_core::Error;
use kindling_core::buffer::Buffer;
use kindling_core::device::{Device, Dtype};
use kindling_core::ops::matmul::bf16::Kernel;
use kindling_core::ops::{grad_norm, linear};
use kindling_core::random::{Purpose, uniform};
use kindling_core::simd::Isa;
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
    Ok(spawn((), move |()| {
        let device = Device::cpu_of(threads, dtype);
        let x = random(shape.rows * shape.inputs, 0);
        let weight = random(shape.outputs * shape.inputs, 1);
        let dout = random(shape.rows * shape.outputs, 2);
        let mut out = vec![
            0.0;
            match options.pass.as_str() {
                "forward" => dout.len(),
                "backward_input" => x.len(),
                "backward_weight" => weight.len(),
                other => return Err(Error::argument(format!("unknown pass \"{other}\""))),
            }
        ];
        let mut seconds = Vec::with_capacity(options.repeats as usize);
        for run in 0..options.warmup + options.repeats {
            let start = Instant::now();
            let (x, weight, dout) = (x.as_slice().into(), weight.as_slice().into(), dout.as_slice().into());
            let out = out.as_mut_slice().into();
            match options.pass.as_str() {
                "forward" => linear::forward(&device, out, x, weight, None, shape)?,
                "backward_input" => linear::backward_input(&device, out, dout, weight, shape, false)?,
                _ => linear::backward_weight(&device, out, None, dout, x, shape)?,
            }
            if run >= options.warmup {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(seconds)
    }))
}

fn random(len: usize, major: u64) -> Vec<f32> {
    (0..len).map(|i| uniform(0, Purpose::Benchmark, major, i as u32) as f32 - 0.5).collect()
}
