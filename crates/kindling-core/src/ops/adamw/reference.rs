//! The oracle of the tests: plain loops in f64.

use super::Hyper;

pub fn step(p: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64], hyper: Hyper) {
    for i in 0..p.len() {
        let g = g[i] * f64::from(hyper.grad_scale);
        m[i] = hyper.beta1 * m[i] + (1.0 - hyper.beta1) * g;
        v[i] = hyper.beta2 * v[i] + (1.0 - hyper.beta2) * g * g;
        p[i] -=
            hyper.alpha() * m[i] / (v[i].sqrt() + hyper.eps) + hyper.lr * hyper.weight_decay * p[i];
    }
}
