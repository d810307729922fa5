//! The oracle of the tests: plain loops in f64.

use super::Shape;
use crate::ops::silu::reference::silu;

pub fn forward(gate_up: &[f64], s: Shape) -> Vec<f64> {
    let mut out = Vec::with_capacity(s.rows * s.width);
    for row in gate_up.chunks_exact(2 * s.width) {
        let (gate, up) = row.split_at(s.width);
        out.extend(gate.iter().zip(up).map(|(g, u)| silu(*g) * u));
    }
    out
}
