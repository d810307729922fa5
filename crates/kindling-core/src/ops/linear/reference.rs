//! Plain loops in f64: the oracle of the tests.

use super::Shape;

/// Returns x W^T + bias.
pub fn forward(x: &[f64], weight: &[f64], bias: Option<&[f64]>, s: Shape) -> Vec<f64> {
    let mut out = vec![0.0; s.rows * s.outputs];
    for row in 0..s.rows {
        for o in 0..s.outputs {
            let mut sum = bias.map_or(0.0, |bias| bias[o]);
            for i in 0..s.inputs {
                sum += x[row * s.inputs + i] * weight[o * s.inputs + i];
            }
            out[row * s.outputs + o] = sum;
        }
    }
    out
}
