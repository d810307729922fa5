//! Prints the launches and bytes of a training step on a CUDA device, with the time that moving the
//! bytes alone takes. Needs no GPU.
//!
//! ```text
//! cargo run --release -p kindling-kernel-emulator --example step_traffic [BATCH]
//! ```

#![allow(clippy::print_stdout, reason = "prints its result")]

use std::sync::Arc;

use kindling_core::Result;
use kindling_core::config::ModelConfig;
use kindling_core::cuda::{Arithmetic, Cuda, Driver};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer};
use kindling_kernel_emulator::{Count, CountingDevice};

/// Rate at which kernels are expected to move bytes on an H100.
const BYTES_PER_MS: f64 = 2.65e9;
const MEMORY: u64 = 80_000_000_000;

/// The preset gpt2-small-bench.
fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 50_304,
        d_model: 768,
        num_heads: 12,
        num_kv_heads: 12,
        d_ff: 2048,
        num_layers: 12,
        max_seq_length: 1024,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    }
}

fn main() -> Result<()> {
    let batch = std::env::args().nth(1).map_or(32, |text| text.parse().expect("a batch size"));
    let config = config();
    let driver = Arc::new(CountingDevice::new(MEMORY));
    let shared: Arc<dyn Driver> = Arc::<CountingDevice>::clone(&driver);
    let cuda = Arc::new(Cuda::new(shared, Arithmetic { dtype: Dtype::Bf16, tf32: false }, 2));
    let mut model = Transformer::new(config.clone(), Device::Cuda(Arc::clone(&cuda)), 1)?;
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() };
    let mut optimizer = AdamW::new(&model, &options)?;
    let rows = batch * config.max_seq_length;
    let ids: Vec<u32> = (0..rows).map(|i| (i * 7919 % config.vocab_size) as u32).collect();
    let targets: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    // The first step allocates.
    for _ in 0..2 {
        driver.take_counts();
        model.accumulate(&ids, &targets, batch, config.max_seq_length, 1.0)?;
        optimizer.queue_clip(&mut model, 1.0)?;
        optimizer.step(&mut model, 1e-4)?;
    }
    let counts = driver.take_counts();
    println!("{:32} {:>8} {:>9} {:>9} {:>7}", "kernel", "launches", "read MB", "written", "ms");
    for (name, count) in &counts.kernels {
        print(name, *count);
    }
    print("all kernels", counts.all_kernels());
    print("copies and clears", counts.copies);
    print("products", counts.products);
    println!(
        "{:.2} TFLOP in products; {} uploads, {} waits; peak {:.2} GB",
        counts.product_flops / 1e12,
        counts.uploads,
        counts.waits,
        cuda.peak_bytes() as f64 / 1e9
    );
    Ok(())
}

fn print(name: &str, count: Count) {
    let (read, written) = (count.traffic.read as f64, count.traffic.written as f64);
    println!(
        "{name:32} {:>8} {:>9.0} {:>9.0} {:>7.2}",
        count.calls,
        read / 1e6,
        written / 1e6,
        (read + written) / BYTES_PER_MS
    );
}
