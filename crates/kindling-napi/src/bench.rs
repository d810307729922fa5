//! Reports the capabilities of the machine, and measures its speed.

use kindling_core::bench::{self, LinearBenchmark, LinearPass};
use kindling_core::cpu::MatmulKernel;
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::{linear, output_loss};
use kindling_core::simd::Isa;
use napi::bindgen_prelude::AsyncTask;

use crate::error::to_napi;
use crate::options::{size, thread_count};
use crate::task::{Job, spawn};

/// Returns the number of cores this process may use.
#[napi(catch_unwind)]
pub fn available_threads() -> u32 {
    kindling_core::pool::available_threads() as u32
}

/// Returns the instruction set of the CPU engine: `scalar`, `avx2` or `avx512`.
#[napi(catch_unwind)]
pub fn instruction_set() -> &'static str {
    Isa::detect().name()
}

/// Returns the number of CUDA devices that this build can use on this machine; 0 if `cudaProblem`
/// is not null.
#[napi(catch_unwind)]
pub fn cuda_device_count() -> u32 {
    if kindling_core::cuda::problem().is_some() {
        0
    } else {
        kindling_core::cuda::device_count() as u32
    }
}

/// Returns why a GPU that seems to be present cannot be used, or null if it can or there is none.
#[napi(catch_unwind)]
pub fn cuda_problem() -> Option<String> {
    kindling_core::cuda::problem()
}

/// Returns the instruction set that multiplies bf16 matrices on this CPU, `avx512bf16` or `amx`;
/// null if bf16 products are computed in f32.
#[napi(catch_unwind)]
pub fn bf16_instructions() -> Option<&'static str> {
    MatmulKernel::detect_bf16().map(MatmulKernel::name)
}

/// Measures memory bandwidth: the bytes per second that `threads` threads read from an array too
/// large for any cache.
#[napi(catch_unwind, ts_return_type = "Promise<number>")]
pub fn bench_memory(threads: f64) -> napi::Result<AsyncTask<Job<(), f64>>> {
    let threads = thread_count(threads).map_err(to_napi)?;
    Ok(spawn((), move |()| bench::memory_bandwidth(threads)))
}

/// A linear layer to time: `rows` rows, from `inputs` to `outputs` features.
#[napi(object)]
pub struct GemmOptions {
    pub rows: f64,
    pub inputs: f64,
    pub outputs: f64,
    /// The product to time. Each pass multiplies matrices in other layouts.
    #[napi(ts_type = "'forward' | 'backward_input' | 'backward_weight'")]
    pub pass: String,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Lets a CUDA device round the operands of f32 products to TensorFloat-32.
    pub tf32: bool,
    /// CPU threads; 0 means one per core this process may use.
    pub threads: f64,
    /// Untimed runs before the first timed one.
    pub warmup: u32,
    /// Timed runs.
    pub repeats: u32,
}

/// Times one pass of a linear layer over random operands. Returns the seconds of each timed run.
/// Runs on a GPU are queued in groups, and those of a group share its time equally.
#[napi(catch_unwind, ts_return_type = "Promise<Array<number>>")]
pub fn bench_gemm(options: GemmOptions) -> napi::Result<AsyncTask<Job<(), Vec<f64>>>> {
    let threads = thread_count(options.threads).map_err(to_napi)?;
    let benchmark = linear_benchmark(&options).map_err(to_napi)?;
    Ok(spawn((), move |()| {
        let dtype = benchmark.dtype;
        let device = Device::from_name(&options.device, threads, dtype, options.tf32)?;
        bench::time_linear(&device, benchmark)
    }))
}

/// Returns how many rows at a time a model's output layer and loss process, when `rows` rows of
/// `dModel` features become `vocabSize` logits each.
#[napi(catch_unwind)]
pub fn output_block_rows(
    rows: f64,
    d_model: f64,
    vocab_size: f64,
    device: String,
    dtype: String,
) -> napi::Result<u32> {
    let rows_of_block = || {
        let shape = output_loss::Shape {
            rows: size("rows", rows)?,
            d_model: size("d_model", d_model)?,
            vocab_size: size("vocab_size", vocab_size)?,
        };
        let dtype = Dtype::from_name(&dtype)?;
        let device = Device::from_name(&device, 1, dtype, false)?;
        Ok(output_loss::block_rows(&device, shape) as u32)
    };
    rows_of_block().map_err(to_napi)
}

fn linear_benchmark(options: &GemmOptions) -> kindling_core::Result<LinearBenchmark> {
    Ok(LinearBenchmark {
        pass: LinearPass::from_name(&options.pass)?,
        shape: linear::Shape {
            rows: size("rows", options.rows)?.max(1),
            inputs: size("inputs", options.inputs)?.max(1),
            outputs: size("outputs", options.outputs)?.max(1),
        },
        dtype: Dtype::from_name(&options.dtype)?,
        warmup: options.warmup as usize,
        repeats: options.repeats as usize,
    })
}
