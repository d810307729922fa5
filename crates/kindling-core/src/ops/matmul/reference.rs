//! Plain loops in f64: the oracle of the tests.

use super::Shape;

/// Returns a b.
pub fn forward(a: &[f64], b: &[f64], s: Shape) -> Vec<f64> {
    let mut out = vec![0.0; s.m * s.n];
    for row in 0..s.m {
        for column in 0..s.n {
            out[row * s.n + column] =
                (0..s.k).map(|k| a[row * s.k + k] * b[k * s.n + column]).sum();
        }
    }
    out
}
