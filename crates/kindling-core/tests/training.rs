//! Tests of optimizers on a whole model, of checkpoints, and of resuming a run bit for bit.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::*;
use kindling_core::checkpoint;
use kindling_core::config::ModelConfig;
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::Transformer;
use kindling_core::ops::adamw;
use kindling_core::optim::{AdamW, AdamWOptions, GroupOptions, Optimizer, Sgd, SgdOptions};
use kindling_core::simd::Isa;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 29,
        d_model: 20,
        num_heads: 2,
        num_kv_heads: 1,
        d_ff: 33,
        num_layers: 2,
        max_seq_length: 16,
        theta: 10_000.0,
        qkv_bias: true,
        ..ModelConfig::PLAIN
    }
}

fn options() -> AdamWOptions {
    AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() }
}

fn model(threads: usize) -> Transformer {
    Transformer::new(config(), device(Isa::detect(), threads), 4).unwrap()
}

fn train(
    model: &mut Transformer,
    optimizer: &mut dyn Optimizer,
    steps: std::ops::Range<u64>,
) -> Vec<f64> {
    steps
        .map(|step| {
            let x: Vec<u32> = (0..32).map(|i| ((i * 7 + step * 3) % 29) as u32).collect();
            let targets: Vec<i32> = x.iter().map(|id| ((id * 5 + 1) % 29) as i32).collect();
            let loss = model.forward_backward(&x, &targets, 2, 16, 1.0).unwrap();
            optimizer.clip_grad_norm(model, 1.0).unwrap();
            optimizer.step(model, 1e-2).unwrap();
            loss.mean()
        })
        .collect()
}

fn folder(name: &str) -> PathBuf {
    let path =
        std::env::temp_dir().join(format!("kindling-training-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn both_optimizers_fit_a_fixed_rule() {
    for optimizer in ["adamw", "sgd"] {
        let mut model = model(2);
        let losses = if optimizer == "adamw" {
            let mut adamw = AdamW::new(&model, &options()).unwrap();
            train(&mut model, &mut adamw, 0..200)
        } else {
            let options = SgdOptions { weight_decay: 0.0, constant: true, groups: Vec::new() };
            let mut sgd = Sgd::new(&model, &options).unwrap();
            (0..400)
                .map(|step| {
                    let x: Vec<u32> = (0..32).map(|i| ((i * 7 + step * 3) % 29) as u32).collect();
                    let targets: Vec<i32> = x.iter().map(|id| ((id * 5 + 1) % 29) as i32).collect();
                    let loss = model.forward_backward(&x, &targets, 2, 16, 1.0).unwrap();
                    sgd.step(&mut model, 0.5).unwrap();
                    loss.mean()
                })
                .collect()
        };
        assert!(
            losses[0] > 3.0 && *losses.last().unwrap() < 0.3,
            "{optimizer}: {:?}",
            losses.last()
        );
    }
}

#[test]
fn recomputing_blocks_does_not_change_a_bit() {
    let trained = |recompute| {
        let mut model = model(2);
        model.set_recompute(recompute);
        let mut optimizer = AdamW::new(&model, &options()).unwrap();
        let losses = train(&mut model, &mut optimizer, 0..3);
        // In between, run a pass that saves nothing for a backward pass, like an evaluation.
        model.logits(&[1, 2, 3]).unwrap();
        (losses, train(&mut model, &mut optimizer, 3..5), model.state_dict().unwrap())
    };
    assert!(trained(true) == trained(false));
}

/// Trains on sequences that follow a rule three times out of four. Returns the mean loss of the
/// last 30 of 150 steps.
fn last_losses(matmul: MatmulBackend, seed: u64) -> f64 {
    const STEPS: u64 = 150;
    let (batch, positions) = (8, 16);
    let device = Device::Cpu(Arc::new(Cpu::new(2, Isa::detect(), matmul)));
    let config = ModelConfig { d_model: 48, num_heads: 4, d_ff: 96, ..config() };
    let mut model = Transformer::new(config, device, seed).unwrap();
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    let mut total = 0.0;
    for step in 0..STEPS {
        let draws = random(1000 * seed + step, batch * (positions + 1));
        let mut ids: Vec<i32> = draws.iter().map(|x| (x.to_bits() >> 3) as i32 % 29).collect();
        for (at, draw) in draws.iter().enumerate() {
            if at % (positions + 1) > 0 && draw.to_bits() % 4 > 0 {
                ids[at] = (ids[at - 1] * 5 + 1) % 29;
            }
        }
        let rows = || ids.chunks(positions + 1);
        let x: Vec<u32> = rows().flat_map(|row| &row[..positions]).map(|id| *id as u32).collect();
        let targets: Vec<i32> = rows().flat_map(|row| &row[1..]).copied().collect();
        let loss = model.forward_backward(&x, &targets, batch, positions, 1.0).unwrap();
        optimizer.clip_grad_norm(&mut model, 1.0).unwrap();
        optimizer.step(&mut model, 3e-3).unwrap();
        total += if step >= STEPS - 30 { loss.mean() / 30.0 } else { 0.0 };
    }
    total
}

#[test]
fn training_in_bf16_reaches_the_loss_of_f32() {
    // The emulation would take minutes.
    let kernels = MatmulKernel::available().into_iter().filter(|k| *k != MatmulKernel::EmulatedAmx);
    for kernel in kernels.filter(|kernel| kernel.dtype() == Dtype::Bf16) {
        for seed in 1..=3 {
            let f32 = last_losses(MatmulBackend::Gemm, seed);
            let bf16 = last_losses(MatmulBackend::Packed(kernel), seed);
            assert!(f32 < 2.5, "nothing was learned: {f32}");
            assert!((bf16 - f32).abs() < 0.01, "{kernel:?}, seed {seed}: {bf16} and {f32}");
        }
    }
}

#[test]
fn bf16_products_change_gradients_only_by_rounding() {
    let (x, targets): (Vec<u32>, Vec<i32>) =
        ((0..32).map(|i| i * 7 % 29).collect(), (0..32).map(|i| i % 29).collect());
    let pass = |matmul| {
        let device = Device::Cpu(Arc::new(Cpu::new(2, Isa::detect(), matmul)));
        let mut model = Transformer::new(config(), device, 4).unwrap();
        let loss = model.forward_backward(&x, &targets, 2, 16, 1.0).unwrap().mean();
        (loss, model.gradients().unwrap())
    };
    let (loss, gradients) = pass(MatmulBackend::Gemm);
    for kernel in
        MatmulKernel::available().into_iter().filter(|kernel| kernel.dtype() == Dtype::Bf16)
    {
        let (bf16_loss, bf16_gradients) = pass(MatmulBackend::Packed(kernel));
        assert!((bf16_loss / loss - 1.0).abs() < 0.01, "{kernel:?}: {bf16_loss} {loss}");
        for (rounded, gradient) in bf16_gradients.iter().zip(&gradients) {
            let largest = gradient.data.iter().fold(0f32, |m, g| m.max(g.abs()));
            let error = rounded
                .data
                .iter()
                .zip(&gradient.data)
                .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(
                error > 0.0 && error < 0.15 * largest,
                "{kernel:?} {}: {error} of {largest}",
                gradient.name
            );
        }
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit_at_any_thread_count() {
    let path = folder("resume").join("step-00000005");
    let mut whole = model(1);
    let mut optimizer = AdamW::new(&whole, &options()).unwrap();
    let losses = train(&mut whole, &mut optimizer, 0..10);

    let mut first = model(2);
    let mut half = AdamW::new(&first, &options()).unwrap();
    train(&mut first, &mut half, 0..5);
    checkpoint::save(&path, &first, Some(&half), 5, serde_json::json!({ "note": "kept" })).unwrap();

    let mut second = Transformer::new(config(), device(Isa::detect(), 3), 99).unwrap();
    let mut rest = AdamW::new(&second, &options()).unwrap();
    let state = checkpoint::load(&path, &mut second, Some(&mut rest)).unwrap();
    assert_eq!((state.iteration, state.run.get()), (5, r#"{"note":"kept"}"#));
    assert_eq!(state.model, config());
    assert!(train(&mut second, &mut rest, 5..10) == losses[5..]);
    assert!(second.state_dict().unwrap() == whole.state_dict().unwrap());
    assert!(rest.state(&second).unwrap() == optimizer.state(&whole).unwrap());

    let again = path.with_file_name("again");
    checkpoint::save(&again, &first, Some(&half), 5, serde_json::json!({ "note": "kept" }))
        .unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert!(
            std::fs::read(path.join(file)).unwrap() == std::fs::read(again.join(file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn damaged_and_mismatched_checkpoints_are_rejected() {
    let path = folder("bad").join("checkpoint");
    let small = model(1);
    let optimizer = AdamW::new(&small, &options()).unwrap();
    checkpoint::save(&path, &small, Some(&optimizer), 1, serde_json::Value::Null).unwrap();

    let mut wider =
        Transformer::new(ModelConfig { d_ff: 34, ..config() }, devices().remove(0), 0).unwrap();
    let error = checkpoint::load(&path, &mut wider, None).unwrap_err();
    assert_eq!(error.code(), "ERR_CHECKPOINT_MISMATCH");
    assert!(
        error.to_string().contains(
            "transformer_blocks.1.Feed_Forward.linear_w2.linear_matrix has shape [33, 20]"
        )
    );

    let mut same = model(1);
    let mut sgd =
        Sgd::new(&same, &SgdOptions { weight_decay: 0.0, constant: false, groups: Vec::new() })
            .unwrap();
    let error = checkpoint::load(&path, &mut same, Some(&mut sgd)).unwrap_err();
    assert_eq!(error.code(), "ERR_CHECKPOINT_MISMATCH");

    let file = path.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(
        checkpoint::load(&path, &mut same, None).unwrap_err().code(),
        "ERR_INVALID_CHECKPOINT"
    );
    std::fs::write(path.join("state.json"), "{").unwrap();
    assert_eq!(
        checkpoint::load(&path, &mut same, None).unwrap_err().code(),
        "ERR_INVALID_CHECKPOINT"
    );
    assert_eq!(
        checkpoint::load(&path.join("none"), &mut same, None).unwrap_err().code(),
        "ERR_NOT_FOUND"
    );
    assert!(same.state_dict().unwrap() == small.state_dict().unwrap());
}

#[test]
fn saving_replaces_an_existing_checkpoint_and_leaves_no_other_file() {
    let base = folder("replace");
    let path = base.join("checkpoint");
    let model = model(1);
    for iteration in [1, 2] {
        checkpoint::save(&path, &model, None, iteration, serde_json::Value::Null).unwrap();
    }
    assert_eq!(checkpoint::read_state(&path).unwrap().iteration, 2);
    let names: Vec<_> = std::fs::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["checkpoint"]);
}

#[test]
fn a_clip_shows_in_the_gradients_and_counts_once_in_the_update() {
    let weights_after = |is_sgd: bool, looks: bool| {
        let mut model = model(2);
        let plain = SgdOptions { weight_decay: 0.0, constant: true, groups: Vec::new() };
        let mut optimizer: Box<dyn Optimizer> = if is_sgd {
            Box::new(Sgd::new(&model, &plain).unwrap())
        } else {
            Box::new(AdamW::new(&model, &options()).unwrap())
        };
        model.forward_backward(&[3; 16], &[1; 16], 1, 16, 1.0).unwrap();
        assert!(optimizer.clip_grad_norm(&mut model, 0.1).unwrap() > 0.2);
        if looks {
            let norm = optimizer.clip_grad_norm(&mut model, 0.0).unwrap();
            assert!((norm - 0.1).abs() < 1e-5);
        }
        optimizer.step(&mut model, 0.5).unwrap();
        model.state_dict().unwrap()
    };
    for is_sgd in [true, false] {
        assert!(weights_after(is_sgd, false) == weights_after(is_sgd, true));
    }
}

#[test]
fn a_non_finite_gradient_fails_the_step_before_any_weight_changes() {
    let mut model = model(1);
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    // A finite norm says nothing about gradients that are added after it was computed.
    model.forward_backward(&[0; 16], &[1; 16], 1, 16, 1.0).unwrap();
    optimizer.clip_grad_norm(&mut model, 1.0).unwrap();
    let mut state = model.state_dict().unwrap();
    state[0].data[3] = f32::NAN;
    model.load_state_dict(&state).unwrap();
    let loss = model.forward_backward(&[0; 16], &[1; 16], 1, 16, 1.0).unwrap();
    assert!(loss.mean().is_nan());
    assert_eq!(optimizer.step(&mut model, 1e-3).unwrap_err().code(), "ERR_NON_FINITE");
    assert_eq!(optimizer.clip_grad_norm(&mut model, 1.0).unwrap_err().code(), "ERR_NON_FINITE");
    assert_eq!(optimizer.step(&mut model, 1e-3).unwrap_err().code(), "ERR_NON_FINITE");
    assert!(model.state_dict().unwrap()[1..] == state[1..]);
    assert_eq!(optimizer.steps(), 0);
}

#[test]
fn groups_override_some_settings_and_inherit_the_rest() {
    let mut model = model(1);
    let groups = vec![
        GroupOptions {
            pattern: "*.linear_w2.*".into(),
            lr: Some(0.0),
            weight_decay: Some(0.0),
            ..Default::default()
        },
        GroupOptions { pattern: "matrices".into(), weight_decay: Some(0.5), ..Default::default() },
    ];
    let mut optimizer =
        AdamW::new(&model, &AdamWOptions { weight_decay: 0.0, groups, ..options() }).unwrap();
    let before = model.state_dict().unwrap();
    model.forward_backward(&[3; 16], &[1; 16], 1, 16, 1.0).unwrap();
    let gradients = model.gradients().unwrap();
    optimizer.step(&mut model, 1e-2).unwrap();
    for ((old, new), g) in before.iter().zip(model.state_dict().unwrap()).zip(gradients) {
        let frozen = old.name.contains("linear_w2");
        let hyper = adamw::Hyper {
            lr: if frozen { 0.0 } else { 1e-2 },
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: if frozen || old.shape.len() == 1 { 0.0 } else { 0.5 },
            step: 1,
            grad_scale: 1.0,
        };
        let mut expected = wide(&old.data);
        let zeros = vec![0.0; expected.len()];
        adamw::reference::step(
            &mut expected,
            &wide(&g.data),
            &mut zeros.clone(),
            &mut zeros.clone(),
            hyper,
        );
        assert_close(&old.name, &new.data, &expected);
        assert_eq!(old.data == new.data, frozen, "{}", old.name);
    }
    assert!(
        model.gradients().unwrap().iter().all(|g| g.data.iter().all(|v| *v == 0.0)),
        "a step clears the gradients"
    );
}

#[test]
fn out_of_range_settings_are_rejected() {
    let mut model = model(1);
    for options in [
        AdamWOptions { betas: (1.0, 0.9), ..options() },
        AdamWOptions { weight_decay: f64::NAN, ..options() },
        AdamWOptions { eps: -1.0, ..options() },
        AdamWOptions {
            groups: vec![GroupOptions { pattern: "nothing".into(), ..Default::default() }],
            ..options()
        },
    ] {
        assert_eq!(AdamW::new(&model, &options).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    assert_eq!(optimizer.step(&mut model, f64::NAN).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    assert_eq!(optimizer.step(&mut model, -1.0).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    assert_eq!(
        optimizer.clip_grad_norm(&mut model, f64::NAN).unwrap_err().code(),
        "ERR_INVALID_ARGUMENT"
    );
}
