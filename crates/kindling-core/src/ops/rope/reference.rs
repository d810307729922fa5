//! The oracle of the tests: plain loops in f64.

use super::Shape;

pub fn forward(x: &[f64], theta: f64, s: Shape) -> Vec<f64> {
    let mut out = x.to_vec();
    for row in 0..s.rows {
        let position = (s.first_position + row % s.positions) as f64;
        for head in 0..s.heads {
            for pair in 0..s.head_size / 2 {
                let angle = position * theta.powf(-2.0 * pair as f64 / s.head_size as f64);
                let at = row * s.row_width + head * s.head_size + 2 * pair;
                out[at] = x[at] * angle.cos() - x[at + 1] * angle.sin();
                out[at + 1] = x[at] * angle.sin() + x[at + 1] * angle.cos();
            }
        }
    }
    out
}
