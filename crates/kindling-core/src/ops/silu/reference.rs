//! The oracle of the tests: plain loops in f64.

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub fn forward(x: &[f64]) -> Vec<f64> {
    x.iter().map(|v| silu(*v)).collect()
}
