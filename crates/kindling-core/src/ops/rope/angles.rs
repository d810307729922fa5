//! The angles of the rotation. Pair k at position p is rotated by p f(k), with
//! f(k) = theta^(-2k / hs).
//!
//! `Scaling` divides the low frequencies, as Llama 3.1 does to reach contexts longer than in
//! pretraining. Source: `_compute_llama3_parameters` of Hugging Face's transformers. With the
//! wavelength w = 2 pi / f and the original context C,
//!
//! ```text
//! w < C / high_freq_factor     f
//! w > C / low_freq_factor      f / factor
//! between                      (1 - s) f / factor + s f,   s = (C / w - low) / (high - low)
//! ```

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// Angles of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Angles {
    pub head_size: usize,
    pub theta: f64,
    pub scaling: Option<Scaling>,
}

/// Scaling of the frequencies, with the names that Hugging Face's `rope_scaling` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: f64,
}

impl Scaling {
    /// Checks the numbers. The error says which one is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, value) in [
            ("factor", self.factor),
            ("low_freq_factor", self.low_freq_factor),
            ("high_freq_factor", self.high_freq_factor),
            ("original_max_position_embeddings", self.original_max_position_embeddings),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!(
                    "rope_scaling: {name} is {value}; it must be a positive number"
                ));
            }
        }
        if self.high_freq_factor > self.low_freq_factor {
            return Ok(());
        }
        Err(format!(
            "rope_scaling: high_freq_factor {} must be above low_freq_factor {}",
            self.high_freq_factor, self.low_freq_factor
        ))
    }

    fn scaled(&self, frequency: f64) -> f64 {
        let turns = self.original_max_position_embeddings * frequency / TAU;
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - share) * frequency / self.factor + share * frequency
    }
}

impl Angles {
    /// Returns the angle per position of each element of a head.
    pub(crate) fn frequencies(&self) -> Vec<f64> {
        let frequency = |element: usize| {
            let pair = (element / 2) as f64;
            let frequency = self.theta.powf(-2.0 * pair / self.head_size as f64);
            self.scaling.map_or(frequency, |scaling| scaling.scaled(frequency))
        };
        (0..self.head_size).map(frequency).collect()
    }

    /// Returns the rows of the cos and sin tables for a position.
    pub fn at(&self, position: usize) -> (Vec<f32>, Vec<f32>) {
        let angles = self.frequencies().into_iter().map(|frequency| position as f64 * frequency);
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
    }
}

/// Returns the tables (cos, sin), each (`max_positions`, `head_size`), without scaling. The angles
/// are computed in f64.
pub fn tables(max_positions: usize, head_size: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let angles = Angles { head_size, theta, scaling: None };
    let table = |of| {
        let mut table = vec![0.0; max_positions * head_size];
        fill_table(&mut table, &angles, of);
        table
    };
    (table(f64::cos), table(f64::sin))
}

/// Fills one of the tables with the cosine or sine of the angles.
pub fn fill_table(table: &mut [f32], angles: &Angles, of: fn(f64) -> f64) {
    let frequencies = angles.frequencies();
    for (position, row) in table.chunks_exact_mut(angles.head_size).enumerate() {
        // Both elements of a pair have the same angle.
        for (pair, frequency) in row.chunks_exact_mut(2).zip(frequencies.iter().step_by(2)) {
            pair.fill(of(position as f64 * frequency) as f32);
        }
    }
}
