//! Plain loops in f64.

/// x sigma(x) of one number.
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// out = x sigma(x).
pub fn forward(x: &[f64]) -> Vec<f64> {
    x.iter().map(|v| silu(*v)).collect()
}
