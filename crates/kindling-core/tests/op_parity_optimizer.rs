//! `AdamW` and SGD against plain f64 loops, on odd lengths and every instruction set.

mod common;

use common::*;
use kindling_core::buffer::{In, Out};
use kindling_core::ops::{adamw, sgd};

#[test]
fn adamw_follows_the_reference_for_many_steps() {
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
                let view =
                    (Out::from(&mut p[..]), In::from(&g[..]), Out::from(&mut m[..]), Out::from(&mut v[..]));
                adamw::step(&dev, view.0, view.1, view.2, view.3, hyper).unwrap();
                adamw::reference::step(&mut pr, &wide(&g), &mut mr, &mut vr, hyper);
            }
            assert_close("p", &p, &pr);
            assert_close("m", &m, &mr);
            assert_close("v", &v, &vr);
        }
    }
}

#[test]
fn sgd_decays_its_rate_with_the_steps_unless_constant() {
    for dev in devices() {
        for (constant, step, rate) in [(false, 0, 0.5), (false, 3, 0.25), (true, 3, 0.5)] {
            let hyper = sgd::Hyper { lr: 0.5, weight_decay: 0.1, step, constant, grad_scale: 1.0 };
            assert_eq!(hyper.rate(), rate);
            let p = random(1, 33);
            let g = random(2, 33);
            let mut updated = p.clone();
            sgd::step(&dev, Out::from(&mut updated[..]), In::from(&g[..]), hyper).unwrap();
            let expected: Vec<f64> =
                wide(&p).iter().zip(wide(&g)).map(|(p, g)| p - rate * (g + 0.1 * p)).collect();
            assert_close("p", &updated, &expected);
        }
    }
}
