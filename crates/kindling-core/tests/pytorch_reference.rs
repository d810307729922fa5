//! Tests the model against a dump from PyTorch: logits, loss, gradients, and ten steps of `AdamW`
//! with clipping. `scripts/fixtures/pytorch_dump.py` writes the dump.

mod common;

use common::*;
use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::model::{NamedTensor, Transformer};
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer};
use safetensors::{Dtype, SafeTensors};

/// The dump: tensors and settings.
struct Dump {
    tensors: Vec<NamedTensor>,
    integers: Vec<(String, Vec<i32>)>,
    batch: usize,
    positions: usize,
    about: serde_json::Value,
}

impl Dump {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pytorch/model.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let about = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |data: &[u8]| -> Vec<[u8; 4]> {
            data.chunks_exact(4).map(|b| b.try_into().unwrap()).collect()
        };
        let (floats, integers): (Vec<_>, Vec<_>) =
            file.tensors().into_iter().partition(|(_, view)| view.dtype() == Dtype::F32);
        let tensors = floats
            .into_iter()
            .map(|(name, view)| NamedTensor {
                name,
                shape: view.shape().to_vec(),
                data: words(view.data()).into_iter().map(f32::from_le_bytes).collect(),
            })
            .collect();
        let shape = file.tensor("x").unwrap().shape().to_vec();
        let integers = integers
            .into_iter()
            .map(|(name, view)| {
                (name, words(view.data()).into_iter().map(i32::from_le_bytes).collect())
            })
            .collect();
        Self { tensors, integers, batch: shape[0], positions: shape[1], about }
    }

    /// Returns the tensors whose names start with `prefix`, without the prefix.
    fn group(&self, prefix: &str) -> Vec<NamedTensor> {
        self.tensors
            .iter()
            .filter_map(|t| {
                t.name
                    .strip_prefix(prefix)
                    .map(|name| NamedTensor { name: name.into(), ..t.clone() })
            })
            .collect()
    }

    fn values(&self, name: &str) -> Vec<f64> {
        wide(&self.tensors.iter().find(|t| t.name == name).unwrap().data)
    }

    fn batch(&self) -> (Vec<u32>, Vec<i32>) {
        let of = |name: &str| self.integers.iter().find(|(n, _)| n == name).unwrap().1.clone();
        (of("x").into_iter().map(i32::cast_unsigned).collect(), of("targets"))
    }

    fn model(&self, device: Device) -> Transformer {
        let config: ModelConfig = serde_json::from_value(self.about["config"].clone()).unwrap();
        let mut model = Transformer::new(config, device, 0).unwrap();
        model.load_state_dict(&self.group("weight.")).unwrap();
        model
    }
}

#[test]
fn logits_loss_and_every_gradient_match_pytorch() {
    let dump = Dump::read();
    let (x, targets) = dump.batch();
    let expected = dump.group("gradient.");
    for device in devices() {
        let mut model = dump.model(device);
        let logits: Vec<f32> =
            x.chunks(dump.positions).flat_map(|row| model.logits(row).unwrap()).collect();
        assert_close("logits", &logits, &dump.values("logits"));
        let loss = model.forward_backward(&x, &targets, dump.batch, dump.positions, 1.0).unwrap();
        assert_close("loss", &[loss.mean() as f32], &dump.values("losses")[..1]);
        let gradients = model.gradients().unwrap();
        assert_eq!(gradients.len(), expected.len());
        for gradient in gradients {
            let expected = expected.iter().find(|t| t.name == gradient.name).unwrap();
            assert_eq!(gradient.shape, expected.shape, "{}", gradient.name);
            assert_close(&gradient.name, &gradient.data, &wide(&expected.data));
        }
    }
}

#[test]
fn ten_steps_of_adamw_with_clipping_match_pytorch() {
    let dump = Dump::read();
    let (x, targets) = dump.batch();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let (adamw, max_norm) = (&dump.about["adamw"], number(&dump.about["max_norm"]));
    for device in devices() {
        let mut model = dump.model(device);
        let options = AdamWOptions {
            betas: (number(&adamw["betas"][0]), number(&adamw["betas"][1])),
            eps: number(&adamw["eps"]),
            weight_decay: number(&adamw["weight_decay"]),
            groups: Vec::new(),
        };
        let mut optimizer = AdamW::new(&model, &options).unwrap();
        let (losses, norms) = (dump.values("losses"), dump.values("norms"));
        assert!(
            losses.len() == 10 && norms.iter().any(|norm| *norm > max_norm),
            "no step was clipped"
        );
        for (step, (loss, norm)) in losses.iter().zip(&norms).enumerate() {
            let sum =
                model.forward_backward(&x, &targets, dump.batch, dump.positions, 1.0).unwrap();
            assert_close(&format!("loss {step}"), &[sum.mean() as f32], &[*loss]);
            let before = optimizer.clip_grad_norm(&mut model, max_norm).unwrap();
            assert_close(&format!("norm {step}"), &[before as f32], &[*norm]);
            optimizer.step(&mut model, number(&adamw["lr"])).unwrap();
        }
    }
}
