//! The oracle of the tests: plain loops in f64.

use super::Hyper;

pub fn step(p: &mut [f64], g: &[f64], hyper: Hyper) {
    for i in 0..p.len() {
        p[i] -= hyper.rate() * (g[i] * f64::from(hyper.grad_scale) + hyper.weight_decay * p[i]);
    }
}
