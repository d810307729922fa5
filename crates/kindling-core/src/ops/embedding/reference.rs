//! The oracle of the tests: plain loops in f64.

use super::Shape;

/// Returns out[row] = weight[ids[row]].
pub fn forward(ids: &[u32], weight: &[f64], s: Shape) -> Vec<f64> {
    let mut out = Vec::with_capacity(s.rows * s.d_model);
    for &id in ids {
        let start = id as usize * s.d_model;
        out.extend_from_slice(&weight[start..start + s.d_model]);
    }
    out
}
