//! Compares the memory plan with what the engine allocates: on the CPU as counted by the allocator,
//! on CUDA as counted by the engine itself over a driver that hands out addresses and computes
//! nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kindling_core::Result;
use kindling_core::config::ModelConfig;
use kindling_core::cpu::{Cpu, MatmulBackend};
use kindling_core::cuda::{Arithmetic, Cuda, Driver, Launch, Product, Properties, Rows};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{MemoryPlan, PlannedDevice, Transformer};
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer};
use kindling_core::simd::Isa;

/// Counts the bytes that the process holds.
struct CountingAllocator;

static HELD: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A driver whose memory consists of addresses only.
#[derive(Debug)]
struct PaperDriver {
    properties: Properties,
    next: AtomicU64,
}

impl PaperDriver {
    fn new(memory: u64) -> Self {
        let properties = Properties {
            name: "paper".to_owned(),
            memory,
            multiprocessors: 132,
            capability: (8, 0),
        };
        Self { properties, next: AtomicU64::new(1 << 20) }
    }
}

impl Driver for PaperDriver {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        Ok(self.next.fetch_add((bytes as u64).next_multiple_of(256), Ordering::Relaxed))
    }

    fn release(&self, _pointer: u64, _bytes: usize) {}

    fn clear(&self, _pointer: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }

    fn upload(&self, _pointer: u64, _from: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, to: &mut [u8], _pointer: u64) -> Result<()> {
        to.fill(0);
        Ok(())
    }

    fn copy_rows(&self, _to: Rows, _from: Rows, _bytes: usize, _count: usize) -> Result<()> {
        Ok(())
    }

    fn launch(&self, _launch: &Launch) -> Result<()> {
        Ok(())
    }

    fn multiply(&self, _product: &Product) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

/// Returns (batch, positions, shape) of a deep model, one with a large vocabulary, and one with
/// grouped wide heads, biases and norms.
fn shapes() -> [(usize, usize, ModelConfig); 3] {
    let deep = ModelConfig {
        vocab_size: 512,
        d_model: 256,
        num_heads: 8,
        num_kv_heads: 8,
        d_ff: 688,
        num_layers: 8,
        max_seq_length: 256,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    };
    let wide_vocabulary = ModelConfig {
        vocab_size: 32_000,
        d_model: 128,
        num_heads: 4,
        num_kv_heads: 4,
        d_ff: 344,
        num_layers: 2,
        tie_embeddings: true,
        ..deep.clone()
    };
    let grouped = ModelConfig {
        vocab_size: 1000,
        d_model: 192,
        num_heads: 6,
        num_kv_heads: 2,
        d_ff: 515,
        num_layers: 3,
        max_seq_length: 128,
        qkv_bias: true,
        head_size: Some(40),
        qk_norm: true,
        ..deep.clone()
    };
    [(2, 256, deep), (3, 200, wide_vocabulary), (5, 111, grouped)]
}

/// Trains for two steps; the second finds all its memory allocated.
fn train(
    device: Device,
    config: &ModelConfig,
    recompute: bool,
    batch: usize,
    positions: usize,
) -> (Transformer, AdamW) {
    let mut model = Transformer::new(config.clone(), device, 1).unwrap();
    model.set_recompute(recompute);
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() };
    let mut optimizer = AdamW::new(&model, &options).unwrap();
    let x: Vec<u32> = (0..batch * positions).map(|i| (i * 31 % config.vocab_size) as u32).collect();
    let targets: Vec<i32> = x.iter().map(|&id| id as i32).collect();
    for _ in 0..2 {
        model.forward_backward(&x, &targets, batch, positions, 1.0).unwrap();
        optimizer.clip_grad_norm(&mut model, 1.0).unwrap();
        optimizer.step(&mut model, 1e-3).unwrap();
    }
    (model, optimizer)
}

// The allocator counts the whole process, so no other test of this file may hold memory.
#[test]
fn the_plan_is_what_the_engine_allocates() {
    for (batch, positions, config) in shapes() {
        for (dtype, recompute) in
            [(Dtype::F32, false), (Dtype::F32, true), (Dtype::Bf16, false), (Dtype::Bf16, true)]
        {
            let (threads, matmul) = (2, MatmulBackend::detect(dtype));
            let before = HELD.load(Ordering::Relaxed);
            let device = Device::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), matmul)));
            let trained = train(device, &config, recompute, batch, positions);
            let held = HELD.load(Ordering::Relaxed) - before;
            drop(trained);
            let planned = PlannedDevice::Cpu { matmul, threads };
            let plan = MemoryPlan::new(config.clone(), planned, recompute).unwrap();
            let memory = plan.memory(batch, positions).unwrap();
            let ratio = memory.total() as f64 / held as f64;
            assert!(
                (ratio - 1.0).abs() < 0.05,
                "cpu {dtype:?}, recompute {recompute}, {config:?}: planned {memory:?}, held {held}"
            );

            // With and without enough memory to keep what is otherwise recomputed.
            for memory in [1 << 40, 1 << 20] {
                let arithmetic = Arithmetic { dtype, tf32: false };
                let gpu = Arc::new(Cuda::new(Arc::new(PaperDriver::new(memory)), arithmetic, 1));
                let trained =
                    train(Device::Cuda(Arc::clone(&gpu)), &config, recompute, batch, positions);
                drop(trained);
                let planned = PlannedDevice::of(&gpu);
                let plan = MemoryPlan::new(config.clone(), planned, recompute).unwrap();
                let planned = plan.memory(batch, positions).unwrap();
                assert_eq!(
                    planned.total(),
                    gpu.peak_bytes(),
                    "cuda {dtype:?}, recompute {recompute}, {config:?}: {planned:?}"
                );
            }
        }
    }
}

#[test]
fn the_largest_batch_fits_and_one_more_sequence_does_not() {
    for (_, positions, config) in shapes() {
        for device in [
            PlannedDevice::Cuda { dtype: Dtype::Bf16, memory: 3 << 30, multiprocessors: 108 },
            PlannedDevice::Cpu { matmul: MatmulBackend::Gemm, threads: 4 },
        ] {
            let plan = MemoryPlan::new(config.clone(), device, false).unwrap();
            let total = |batch| plan.memory(batch, positions).unwrap().total();
            let available = 3 << 30;
            let batch = plan.largest_batch(positions, available).unwrap();
            assert!(batch > 1 && total(batch) <= available && total(batch + 1) > available);
            assert_eq!(plan.largest_batch(positions, total(1) - 1).unwrap(), 0);
            assert!(plan.largest_batch(positions, u64::MAX).unwrap() > batch);
            let error = plan.memory(usize::MAX, positions).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
        }
    }
}

#[test]
fn a_batch_whose_padded_sizes_overflow_is_an_error() {
    let config = ModelConfig {
        vocab_size: 13,
        d_model: 4,
        num_heads: 2,
        num_kv_heads: 2,
        d_ff: 6,
        num_layers: 2,
        max_seq_length: 2,
        ..ModelConfig::PLAIN
    };
    let device = PlannedDevice::Cuda { dtype: Dtype::Bf16, memory: 80 << 30, multiprocessors: 132 };
    let plan = MemoryPlan::new(config, device, true).unwrap();
    let mut last = 0;
    for exponent in 0..64 {
        match plan.memory(1 << exponent, 2) {
            Ok(planned) => {
                assert!(
                    planned.total() >= last,
                    "2^{exponent} sequences take less than half of it"
                );
                last = planned.total();
            }
            Err(error) => {
                assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
                assert!(exponent > 32, "2^{exponent} sequences are refused");
                return;
            }
        }
    }
    panic!("no batch is too large");
}
