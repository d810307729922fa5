//! Tests models of the Llama family against Hugging Face's transformers: logits, loss, every
//! gradient, and ten steps of `AdamW` with clipping. `scripts/fixtures/llama_family.py` writes the
//! fixtures.
//!
//! They cover grouped heads, explicit head sizes, tied embeddings, biases, norms of queries and
//! keys, Llama 3's rope scaling, and several values of theta and eps.

mod common;

use common::hugging_face::{Fixture, fixtures};
use common::*;
use kindling_core::cpu::{Cpu, MatmulBackend};
use kindling_core::decode::{Generator, GeneratorOptions, SamplingOptions};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::optim::{AdamW, Optimizer};
use kindling_core::simd::Isa;

fn logits(fixture: &Fixture, model: &mut kindling_core::model::Transformer) -> Vec<f32> {
    fixture.x.chunks(fixture.positions).flat_map(|row| model.logits(row).unwrap()).collect()
}

#[test]
fn logits_loss_and_every_gradient_match_transformers() {
    for fixture in fixtures() {
        let expected = fixture.tensors("gradient.");
        for device in devices() {
            let mut model = fixture.model(device);
            assert_close(
                &format!("{} logits", fixture.name),
                &logits(&fixture, &mut model),
                &fixture.values("logits"),
            );
            let loss = fixture.forward_backward(&mut model);
            assert_close(&fixture.name, &[loss as f32], &fixture.values("losses")[..1]);
            let gradients = model.gradients().unwrap();
            assert_eq!(gradients.len(), expected.len(), "{}", fixture.name);
            for gradient in gradients {
                let expected = expected.iter().find(|t| t.name == gradient.name).unwrap();
                assert_eq!(gradient.shape, expected.shape, "{}", gradient.name);
                let what = format!("{} {}", fixture.name, gradient.name);
                assert_close(&what, &gradient.data, &wide(&expected.data));
            }
        }
    }
}

#[test]
fn ten_steps_of_adamw_with_clipping_match_transformers() {
    for fixture in fixtures() {
        let (options, lr, max_norm) = fixture.adamw();
        let (losses, norms) = (fixture.values("losses"), fixture.values("norms"));
        assert!(losses.len() == 10 && norms.iter().any(|norm| *norm > max_norm));
        let mut model = fixture.model(devices().pop().unwrap());
        let mut optimizer = AdamW::new(&model, &options).unwrap();
        for (step, (loss, norm)) in losses.iter().zip(&norms).enumerate() {
            let what = format!("{} step {step}", fixture.name);
            assert_close(&what, &[fixture.forward_backward(&mut model) as f32], &[*loss]);
            let before = optimizer.clip_grad_norm(&mut model, max_norm).unwrap();
            assert_close(&what, &[before as f32], &[*norm]);
            optimizer.step(&mut model, lr).unwrap();
        }
        let after = logits(&fixture, &mut model);
        assert_close(&fixture.name, &after, &fixture.values("logits_after"));
    }
}

#[test]
fn recomputing_blocks_gives_the_same_gradients_bit_for_bit() {
    for fixture in fixtures() {
        let run = |recompute| {
            let mut model = fixture.model(devices().pop().unwrap());
            model.set_recompute(recompute);
            fixture.forward_backward(&mut model);
            model.gradients().unwrap()
        };
        assert!(run(true) == run(false), "{}", fixture.name);
    }
}

#[test]
fn bf16_products_stay_close_to_transformers_in_f64() {
    for fixture in fixtures() {
        let matmul = MatmulBackend::detect(Dtype::Bf16);
        let cpu = Cpu::new(2, Isa::detect(), matmul);
        let mut model = fixture.model(Device::Cpu(std::sync::Arc::new(cpu)));
        let error = relative_error(&logits(&fixture, &mut model), &fixture.values("logits"));
        // PyTorch's autocast to bf16 differs by 0.01 to 0.05 on these models, and most on the same
        // one.
        assert!(error < 0.08, "{}: {error}", fixture.name);
        let loss = fixture.forward_backward(&mut model);
        assert!((loss - fixture.values("losses")[0]).abs() < 0.06, "{}", fixture.name);
    }
}

#[test]
fn decoding_with_a_cache_picks_the_tokens_of_whole_passes() {
    for fixture in fixtures() {
        let mut model = fixture.model(devices().pop().unwrap());
        let prompt = fixture.x[..5].to_vec();
        let greedy =
            SamplingOptions { temperature: 0.0, top_k: None, top_p: 1.0, repetition_penalty: 1.0 };
        let options = GeneratorOptions {
            max_tokens: 12,
            sampling: greedy,
            seed: 1,
            stop: Vec::new(),
            rolling_cache: false,
            limit_vocab: None,
        };
        let mut generator = Generator::new(&model, std::slice::from_ref(&prompt), options).unwrap();
        while generator.next(&mut model).unwrap().is_some() {}
        let drawn = generator.tokens(0).to_vec();
        for length in prompt.len()..drawn.len() {
            let all = model.logits(&drawn[..length]).unwrap();
            let last = &all[all.len() - model.config().vocab_size..];
            let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
            assert_eq!(drawn[length] as usize, best, "{} token {length}", fixture.name);
        }
    }
}
