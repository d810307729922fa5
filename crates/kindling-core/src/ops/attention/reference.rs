//! The oracle of the tests: plain loops in f64.

use super::Shape;

/// Returns out (b t, nh hs).
pub fn forward(qkv: &[f64], s: Shape) -> Vec<f64> {
    let (width, hs) = (s.qkv_width(), s.head_size);
    let mut out = vec![0.0; s.batch * s.positions * s.out_width()];
    for b in 0..s.batch {
        for head in 0..s.num_heads {
            let kv_head = head / (s.num_heads / s.num_kv_heads);
            let q_at = head * hs;
            let k_at = (s.num_heads + kv_head) * hs;
            let v_at = (s.num_heads + s.num_kv_heads + kv_head) * hs;
            for t in 0..s.positions {
                let row = b * s.positions + t;
                let scores: Vec<f64> = (0..=t)
                    .map(|past| {
                        let key = (b * s.positions + past) * width + k_at;
                        let dot: f64 =
                            (0..hs).map(|i| qkv[row * width + q_at + i] * qkv[key + i]).sum();
                        dot / (hs as f64).sqrt()
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|v| (v - largest).exp()).sum();
                for (past, score) in scores.iter().enumerate() {
                    let value = (b * s.positions + past) * width + v_at;
                    for i in 0..hs {
                        out[row * s.out_width() + head * hs + i] +=
                            (score - largest).exp() / sum * qkv[value + i];
                    }
                }
            }
        }
    }
    out
}
