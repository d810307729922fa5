//! Input: a byte that sets the batch size, then the configuration of a model as JSON. It is checked
//! and its memory is planned; a small model is built and runs a pass.
#![no_main]

use kindling_core::config::ModelConfig;
use kindling_core::cpu::MatmulBackend;
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{MemoryPlan, PlannedDevice, Transformer};
use kindling_fuzz::sound;

/// Models that need more bytes than this are planned, but not built.
const SMALL: u64 = 4 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((batch, json)) = data.split_first() else { return };
    let Ok(config) = serde_json::from_slice::<ModelConfig>(json) else { return };
    let matmul = MatmulBackend::detect(Dtype::F32);
    let batch = 1_usize << (batch & 63);
    for device in [
        PlannedDevice::Cpu { matmul, threads: 1 },
        PlannedDevice::Cuda { dtype: Dtype::Bf16, memory: 80 << 30, multiprocessors: 132 },
    ] {
        let Some(plan) = sound(MemoryPlan::new(config.clone(), device, batch & 1 == 0)) else {
            return;
        };
        let planned = sound(plan.memory(batch, config.max_seq_length));
        let PlannedDevice::Cpu { .. } = device else { continue };
        if planned.is_none_or(|planned| planned.total() > SMALL) {
            continue;
        }
        let Some(mut model) = sound(Transformer::new(config.clone(), Device::cpu(1), 1)) else {
            continue;
        };
        let ids = vec![(config.vocab_size - 1) as u32; config.max_seq_length];
        sound(model.logits(&ids));
    }
});
