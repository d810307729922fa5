//! Input: a model of another program. It is a GGUF, PyTorch or safetensors file, or, if it starts
//! with `{`, the config.json and the model.safetensors of a Hugging Face folder.
#![no_main]

use kindling_core::cpu::MatmulBackend;
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::exchange::{CourseSizes, ModelSource};
use kindling_core::model::{MemoryPlan, PlannedDevice, Transformer};
use kindling_core::progress::silent;
use kindling_fuzz::{empty_folder, file, sound, split};

/// Models that need more bytes than this are opened, but not built.
const SMALL: u64 = 4 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = empty_folder("model");
    let path = if data.first() == Some(&b'{') {
        let [config, weights] = split::<2>(data).map(Option::unwrap_or_default);
        file(&folder, "config.json", config);
        file(&folder, "model.safetensors", weights);
        folder
    } else {
        file(&folder, "model", data)
    };
    let sizes = CourseSizes { num_heads: Some(2), ..CourseSizes::default() };
    let Some(mut source) = sound(ModelSource::open(&path, &sizes)) else { return };
    if let Some(Some(tokenizer)) = sound(source.tokenizer()) {
        sound(tokenizer.encode("the sea's 12 é日😀\n"));
    }
    let matmul = MatmulBackend::detect(Dtype::F32);
    let device = PlannedDevice::Cpu { matmul, threads: 1 };
    let plan = MemoryPlan::new(source.config.clone(), device, false);
    let planned = sound(plan.and_then(|plan| plan.memory(1, 1)));
    if planned.is_none_or(|planned| planned.total() > SMALL) {
        return;
    }
    let Some(mut model) = sound(Transformer::new(source.config.clone(), Device::cpu(1), 1)) else {
        return;
    };
    if sound(source.read_into(&mut model, &mut silent)).is_some() {
        sound(model.logits(&[0]));
    }
});
