//! Tests of `forward` and `backward` with custom losses, and of frozen parameters.

mod common;

use common::hugging_face::{Fixture, fixtures};
use common::*;
use kindling_core::model::{Transformer, matching};
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer, Sgd, SgdOptions};

/// Returns the gradient of `scale` times the mean cross-entropy with respect to the logits.
fn cross_entropy_gradient(logits: &[f32], targets: &[i32], scale: f64) -> Vec<f32> {
    let v = logits.len() / targets.len();
    let rows = logits.chunks(v).zip(targets).map(|(row, &target)| {
        let largest = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
        let exps: Vec<f64> = row.iter().map(|&x| (f64::from(x) - largest).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let hit = |i| f64::from(u8::from(i == target as usize));
        let share = scale / targets.len() as f64;
        (0..v).map(|i| ((exps[i] / sum - hit(i)) * share) as f32).collect::<Vec<_>>()
    });
    rows.flatten().collect()
}

fn two_passes(fixture: &Fixture, model: &mut Transformer) {
    let logits = model.forward(&fixture.x, fixture.batch, fixture.positions).unwrap();
    let dlogits = cross_entropy_gradient(&logits, &fixture.targets, 1.0);
    model.backward(&dlogits).unwrap();
}

#[test]
fn backward_of_cross_entropy_gives_the_gradients_of_forward_backward() {
    for fixture in fixtures() {
        for (device, recompute) in
            devices().into_iter().flat_map(|d| [(d.clone(), false), (d, true)])
        {
            let mut model = fixture.model(device);
            model.set_recompute(recompute);
            fixture.forward_backward(&mut model);
            let expected = model.gradients().unwrap();
            model.zero_gradients().unwrap();
            two_passes(&fixture, &mut model);
            for (actual, expected) in model.gradients().unwrap().iter().zip(&expected) {
                let what = format!("{} {}", fixture.name, actual.name);
                assert_close(&what, &actual.data, &wide(&expected.data));
            }
        }
    }
}

#[test]
fn backward_needs_the_activations_of_the_last_forward() {
    let fixture = fixtures().remove(0);
    let mut model = fixture.model(devices().remove(0));
    let (x, targets, batch, positions) =
        (&fixture.x, &fixture.targets, fixture.batch, fixture.positions);
    let dlogits = vec![0.1; x.len() * model.config().vocab_size];
    let refused = |model: &mut Transformer| {
        let error = model.backward(&dlogits).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_ARGUMENT", "{error}");
        assert!(error.to_string().contains("call forward first"), "{error}");
    };
    refused(&mut model);
    model.forward(x, batch, positions).unwrap();
    let error = model.backward(&dlogits[1..]).unwrap_err();
    assert_eq!(error.code(), "ERR_SHAPE_MISMATCH");
    model.backward(&dlogits).unwrap();
    refused(&mut model);
    model.forward(x, batch, positions).unwrap();
    model.loss(x, targets, batch, positions).unwrap();
    refused(&mut model);
    let mut optimizer =
        Sgd::new(&model, &SgdOptions { weight_decay: 0.0, constant: true, groups: Vec::new() })
            .unwrap();
    model.forward(x, batch, positions).unwrap();
    optimizer.step(&mut model, 0.1).unwrap();
    refused(&mut model);
    model.forward(x, batch, positions).unwrap();
    let state = model.state_dict().unwrap();
    model.load_state_dict(&state).unwrap();
    refused(&mut model);
}

fn adamw(model: &Transformer) -> AdamW {
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() };
    AdamW::new(model, &options).unwrap()
}

#[test]
fn frozen_parameters_keep_their_weights_and_the_others_train_as_if_alone() {
    for fixture in fixtures() {
        let mut model = fixture.model(devices().pop().unwrap());
        let frozen: Vec<String> = ["token_embedding*", "transformer_blocks.0.*", "*.q_proj.*"]
            .iter()
            .flat_map(|pattern| matching(model.parameters(), pattern).unwrap())
            .collect();
        fixture.forward_backward(&mut model);
        let whole = model.gradients().unwrap();
        model.zero_gradients().unwrap();
        model.set_frozen(&frozen).unwrap();
        let before = model.state_dict().unwrap();
        fixture.forward_backward(&mut model);
        for (actual, whole) in model.gradients().unwrap().iter().zip(&whole) {
            if frozen.contains(&actual.name) {
                assert!(actual.data.iter().all(|g| *g == 0.0), "{}", actual.name);
            } else {
                assert!(actual.data == whole.data, "{}", actual.name);
            }
        }
        let mut optimizer = adamw(&model);
        optimizer.clip_grad_norm(&mut model, 1.0).unwrap();
        optimizer.step(&mut model, 1e-2).unwrap();
        for (after, before) in model.state_dict().unwrap().iter().zip(&before) {
            let is_same = after.data == before.data;
            assert_eq!(is_same, frozen.contains(&after.name), "{}", after.name);
        }
        // Once unfrozen, they train again.
        model.set_frozen(&[]).unwrap();
        fixture.forward_backward(&mut model);
        optimizer.step(&mut model, 1e-2).unwrap();
        let after = model.state_dict().unwrap();
        assert!(after.iter().zip(&before).all(|(after, before)| after.data != before.data));
    }
}

#[test]
fn freezing_drops_gradients_that_were_there_and_refuses_unknown_names() {
    let fixture = fixtures().into_iter().find(|fixture| fixture.name == "llama-grouped").unwrap();
    let mut model = fixture.model(devices().pop().unwrap());
    fixture.forward_backward(&mut model);
    let gains = matching(model.parameters(), "*.g").unwrap();
    model.set_frozen(&gains).unwrap();
    for gradient in model.gradients().unwrap() {
        let is_zero = gradient.data.iter().all(|g| *g == 0.0);
        assert_eq!(is_zero, gains.contains(&gradient.name), "{}", gradient.name);
    }
    let error = matching(model.parameters(), "nothing*").unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
    assert_eq!(matching(model.parameters(), "matrices").unwrap().len(), 2 + 7 * 2);
}
