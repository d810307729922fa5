//! Launches, bytes and waits of a training step on a CUDA device, against committed figures. A step
//! that starts to do more is noticed here, without a GPU.
//!
//! If the figures change on purpose, update `EXPECTED`. `cargo run --release -p
//! kindling-kernel-emulator --example step_traffic` prints what the change means for a large model.

use std::fmt::Write;
use std::sync::Arc;

use kindling_core::config::ModelConfig;
use kindling_core::cuda::{Arithmetic, Cuda, Driver};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer};
use kindling_kernel_emulator::{Count, CountingDevice, Counts};

/// Calls, bytes read, bytes written.
const EXPECTED: &str = "
adamw_step: 1 8394240 9443520
attention_backward: 3 608256 442368
attention_delta: 3 294912 9216
attention_forward: 3 442368 156672
cross_entropy_add_losses: 1 1024 8
cross_entropy_forward_backward_kept: 1 512512 513536
embedding_backward: 1 196608 98304
embedding_forward: 1 99328 98304
grad_norm_clip_factor: 1 1032 24
grad_norm_squares: 1 2098560 1032
rms_norm_add_partial: 7 45696 2688
rms_norm_backward: 7 1629184 1320960
rms_norm_forward: 7 983040 941056
rope_rotate: 3 294912 294912
swiglu_backward: 3 1179648 786432
swiglu_forward: 3 786432 393216
all kernels: 46 17567752 14502248
copies: 0 0 0
products: 39 9264896 4632448
4 uploads, 0 waits
";

/// Returns the work of the second step, since the first one allocates.
fn step_of(config: &ModelConfig, batch: usize, read_losses: bool) -> Counts {
    let driver = Arc::new(CountingDevice::new(1 << 34));
    let shared: Arc<dyn Driver> = Arc::<CountingDevice>::clone(&driver);
    let cuda = Cuda::new(shared, Arithmetic { dtype: Dtype::Bf16, tf32: false }, 1);
    let mut model = Transformer::new(config.clone(), Device::Cuda(Arc::new(cuda)), 1).unwrap();
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() };
    let mut optimizer = AdamW::new(&model, &options).unwrap();
    let positions = config.max_seq_length;
    let ids: Vec<u32> =
        (0..batch * positions).map(|i| (i * 37 % config.vocab_size) as u32).collect();
    let targets: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    for _ in 0..2 {
        driver.take_counts();
        if read_losses {
            model.forward_backward(&ids, &targets, batch, positions, 1.0).unwrap();
        } else {
            model.accumulate(&ids, &targets, batch, positions, 1.0).unwrap();
        }
        optimizer.queue_clip(&mut model, 1.0).unwrap();
        optimizer.step(&mut model, 1e-4).unwrap();
    }
    driver.take_counts()
}

fn report(counts: &Counts) -> String {
    let mut text = "\n".to_owned();
    let mut line = |name: &str, count: &Count| {
        let (read, written) = (count.traffic.read, count.traffic.written);
        writeln!(text, "{name}: {} {read} {written}", count.calls).unwrap();
    };
    for (name, count) in &counts.kernels {
        line(name, count);
    }
    line("all kernels", &counts.all_kernels());
    line("copies", &counts.copies);
    line("products", &counts.products);
    writeln!(text, "{} uploads, {} waits", counts.uploads, counts.waits).unwrap();
    text
}

/// A small model with the proportions of GPT-2, and SwiGLU.
fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 1001,
        d_model: 96,
        num_heads: 3,
        num_kv_heads: 3,
        d_ff: 256,
        num_layers: 3,
        max_seq_length: 64,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    }
}

#[test]
fn a_step_launches_and_moves_what_it_did() {
    let report = report(&step_of(&config(), 4, false));
    assert!(report == EXPECTED, "a step now does:{report}\nand did:{EXPECTED}");
}

#[test]
fn reading_the_losses_adds_waits_alone() {
    let (quiet, read) = (step_of(&config(), 4, false), step_of(&config(), 4, true));
    // One for the losses, and one for the norm, which tells whether the update took place.
    assert_eq!((quiet.waits, read.waits), (0, 2));
    assert_eq!(quiet.kernels, read.kernels);
}
