//! AdamW and SGD against f64 loops, at odd lengths and on every instruction set; AdamW against
//! PyTorch.

mod common;

use common::*;
use kindling_core::buffer::{In, Out};
use kindling_core::ops::{adamw, grad_norm, sgd};
use serde_json::Value;

#[test]
fn adamw_matches_the_reference_for_20_steps() {
    for len in [1, 7, 31, 33, 1000] {
        for dev in devices() {
            let start = random(1, len);
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; len], vec![0.0; len]);
            let (mut pr, mut mr, mut vr) = (wide(&start), vec![0.0; len], vec![0.0; len]);
            for step in 1..=20 {
                let g = random(10 + step, len);
                let hyper = adamw::Hyper {
                    lr: 0.01,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay: 0.1,
                    step,
                    grad_scale: 0.5,
                };
                let view = (
                    Out::from(&mut p[..]),
                    In::from(&g[..]),
                    Out::from(&mut m[..]),
                    Out::from(&mut v[..]),
                );
                adamw::step(
                    &dev,
                    adamw::Step { p: view.0, g: view.1, m: view.2, v: view.3, hyper },
                )
                .unwrap();
                adamw::reference::step(&mut pr, &wide(&g), &mut mr, &mut vr, hyper);
            }
            assert_close("p", &p, &pr);
            assert_close("m", &m, &mr);
            assert_close("v", &v, &vr);
        }
    }
}

#[test]
fn sgd_matches_the_reference_with_a_decaying_and_a_constant_rate() {
    for dev in devices() {
        for (constant, step, rate) in [(false, 0, 0.5), (false, 3, 0.25), (true, 3, 0.5)] {
            let hyper = sgd::Hyper { lr: 0.5, weight_decay: 0.1, step, constant, grad_scale: 0.5 };
            assert_eq!(hyper.rate(), rate);
            let p = random(1, 33);
            let g = random(2, 33);
            let mut updated = p.clone();
            sgd::step(
                &dev,
                sgd::Step { p: Out::from(&mut updated[..]), g: In::from(&g[..]), hyper },
            )
            .unwrap();
            let mut expected = wide(&p);
            sgd::reference::step(&mut expected, &wide(&g), hyper);
            assert_close("p", &updated, &expected);
        }
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn adamw_matches_pytorch_to_1e_4_for_1000_steps() {
    let fixture: Value =
        serde_json::from_str(include_str!("fixtures/adamw/trajectory.json")).unwrap();
    let hyper = |name: &str| fixture["hyper"][name].as_f64().unwrap();
    let inputs = numbers(&fixture["inputs"]);
    for dev in devices() {
        let mut weight = numbers(&fixture["initial"]);
        let (mut m, mut v) = (vec![0.0; 6], vec![0.0; 6]);
        for (step, x) in (1..).zip(inputs.chunks_exact(3)) {
            let target = [x[0] + x[1], -x[2]];
            let mut g = [0.0; 6];
            for row in 0..2 {
                let y: f32 = (0..3).map(|column| weight[3 * row + column] * x[column]).sum();
                (0..3).for_each(|column| g[3 * row + column] = 2.0 * (y - target[row]) * x[column]);
            }
            let hyper = adamw::Hyper {
                lr: hyper("lr"),
                beta1: hyper("beta1"),
                beta2: hyper("beta2"),
                eps: hyper("eps"),
                weight_decay: hyper("weight_decay"),
                step,
                grad_scale: 1.0,
            };
            let views = (
                Out::from(&mut weight[..]),
                In::from(&g[..]),
                Out::from(&mut m[..]),
                Out::from(&mut v[..]),
            );
            adamw::step(
                &dev,
                adamw::Step { p: views.0, g: views.1, m: views.2, v: views.3, hyper },
            )
            .unwrap();
            if let Some(expected) = fixture["weights"].get(step.to_string()) {
                for (w, e) in weight.iter().zip(numbers(expected)) {
                    assert!((w - e).abs() < 1e-4, "step {step}: {w} instead of {e}");
                }
            }
        }
        assert_eq!(inputs.len(), 3000);
    }
}

#[test]
fn updates_and_norms_are_the_same_bits_on_any_number_of_threads() {
    let isa = *kindling_core::simd::Isa::available().last().unwrap();
    let len = 200_003;
    let g = random(2, len);
    let run = |threads: usize| {
        let dev = device(isa, threads);
        let (mut p, mut m, mut v) =
            (random(1, len), random(3, len), random_around(4, len, 1.0, 0.5));
        let decay = adamw::Hyper {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 3,
            grad_scale: 1.0,
        };
        let views =
            (Out::from(&mut p[..]), In::from(&g[..]), Out::from(&mut m[..]), Out::from(&mut v[..]));
        adamw::step(
            &dev,
            adamw::Step { p: views.0, g: views.1, m: views.2, v: views.3, hyper: decay },
        )
        .unwrap();
        let hyper =
            sgd::Hyper { lr: 0.5, weight_decay: 0.1, step: 1, constant: false, grad_scale: 0.3 };
        sgd::step(&dev, sgd::Step { p: Out::from(&mut p[..]), g: In::from(&g[..]), hyper })
            .unwrap();
        let norm = grad_norm::sum_of_squares(&dev, In::from(&p[..])).unwrap();
        (norm.to_bits(), [p, m, v].concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}
