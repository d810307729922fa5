//! The oracle of the tests: plain loops in f64.

use super::Shape;

pub fn forward(x: &[f64], weight: &[f64], s: Shape) -> Vec<f64> {
    let mut out = x.to_vec();
    let (q_gain, k_gain) = weight.split_at(s.head_size);
    for row in out.chunks_exact_mut(s.row_width) {
        for (index, head) in row[..s.normed_width()].chunks_exact_mut(s.head_size).enumerate() {
            let mean = head.iter().map(|v| v * v).sum::<f64>() / s.head_size as f64;
            let rstd = 1.0 / (mean + f64::from(s.eps)).sqrt();
            let gain = if index < s.q_heads { q_gain } else { k_gain };
            head.iter_mut().zip(gain).for_each(|(v, g)| *v *= rstd * g);
        }
    }
    out
}
