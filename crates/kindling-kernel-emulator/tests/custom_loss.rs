//! Custom losses and frozen parameters on an emulated device, against the CPU.
#![cfg_attr(no_cpp_compiler, allow(unused, reason = "no C++ compiler"))]

use std::sync::Arc;

use kindling_core::config::ModelConfig;
use kindling_core::cpu::{Cpu, MatmulBackend};
use kindling_core::cuda::{Arithmetic, Cuda, Driver};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{Transformer, matching};
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer};
use kindling_core::simd::Isa;
use kindling_kernel_emulator::{EmulatedDevice, Order};

const BATCH: usize = 2;
const POSITIONS: usize = 7;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 37,
        d_model: 24,
        num_heads: 4,
        num_kv_heads: 2,
        d_ff: 20,
        num_layers: 2,
        max_seq_length: 11,
        qk_norm: true,
        qkv_bias: true,
        ..ModelConfig::PLAIN
    }
}

fn models(dtype: Dtype) -> (Transformer, Transformer) {
    let cpu = Device::Cpu(Arc::new(Cpu::new(1, Isa::detect(), MatmulBackend::Gemm)));
    let driver: Arc<dyn Driver> = Arc::new(EmulatedDevice::new(64 << 20, Order::Forward));
    let gpu = Device::Cuda(Arc::new(Cuda::new(driver, Arithmetic { dtype, tf32: false }, 1)));
    let build = |device| Transformer::new(config(), device, 7).unwrap();
    (build(cpu), build(gpu))
}

fn ids() -> Vec<u32> {
    (0..(BATCH * POSITIONS) as u32).map(|i| (i * i * 5 + 3 * i) % 37).collect()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn backward_from_logits_and_frozen_parameters_match_the_cpu() {
    for (dtype, tolerance) in [(Dtype::F32, 1e-4), (Dtype::Bf16, 0.05)] {
        let (mut cpu, mut gpu) = models(dtype);
        let names = matching(cpu.parameters(), "transformer_blocks.1.*").unwrap();
        let mut results = Vec::new();
        for model in [&mut cpu, &mut gpu] {
            let before = model.state_dict().unwrap();
            model.set_frozen(&names).unwrap();
            let logits = model.forward(&ids(), BATCH, POSITIONS).unwrap();
            let dlogits: Vec<f32> = (0..logits.len()).map(|i| (i as f32 * 0.7).sin()).collect();
            model.backward(&dlogits).unwrap();
            let gradients = model.gradients().unwrap();
            let options = AdamWOptions {
                betas: (0.9, 0.95),
                eps: 1e-8,
                weight_decay: 0.1,
                groups: Vec::new(),
            };
            let mut optimizer = AdamW::new(model, &options).unwrap();
            optimizer.clip_grad_norm(model, 1.0).unwrap();
            optimizer.step(model, 1e-2).unwrap();
            for (after, before) in model.state_dict().unwrap().iter().zip(&before) {
                assert_eq!(
                    after.data == before.data,
                    names.contains(&after.name),
                    "{}",
                    after.name
                );
            }
            results.push((logits, gradients));
        }
        let [(logits, gradients), (gpu_logits, gpu_gradients)] = &results[..] else { panic!() };
        let off = logits.iter().zip(gpu_logits).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < tolerance * largest(logits), "{dtype:?} logits {off}");
        for (a, b) in gradients.iter().zip(gpu_gradients) {
            let off = a.data.iter().zip(&b.data).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off <= tolerance * largest(&a.data), "{dtype:?} {}: {off}", a.name);
        }
    }
}
