//! Initial weights. Each named matrix is normal with std sqrt(2 / (rows + columns)), truncated at 3
//! std; gains are 1, biases 0.
//!
//! A draw depends only on (seed, parameter, element of the matrix in files). Fusing matrices in
//! memory or changing the number of threads does not change it.

use super::params::{Layout, Parameter};
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::pool::Pool;
use crate::random::{Purpose, uniform};

/// Fills the flat weights.
pub(super) fn fill(pool: &Pool, weights: &mut [f32], layout: &Layout, seed: u64) {
    for (index, parameter) in layout.parameters.iter().enumerate() {
        let tasks = Tasks::new(parameter.range.len(), 1 << 12);
        let weights = RowsMut::new(&mut weights[parameter.range.clone()], 1);
        split_rows(pool, tasks, weights, |elements, weights| {
            for (element, weight) in elements.zip(weights) {
                *weight = initial_value(parameter, seed, index as u64, element);
            }
        });
    }
}

/// Returns the initial value of the element with the index `element` in memory order.
fn initial_value(parameter: &Parameter, seed: u64, index: u64, element: usize) -> f32 {
    let [rows, columns] = parameter.file_shape[..] else {
        return if parameter.is_bias() { 0.0 } else { 1.0 };
    };
    let std = (2.0 / (rows + columns) as f64).sqrt();
    let in_file =
        if parameter.transposed { (element % rows) * columns + element / rows } else { element };
    // The minor counter has 32 bits; the high bits of the element's index go to the major counter.
    let major = index << 32 | (in_file >> 32) as u64;
    let u = uniform(seed, Purpose::Init, major, in_file as u32);
    (std * truncated_normal(u)) as f32
}

/// Maps u in [0, 1) to the standard normal distribution truncated at 3 std, by inversion.
fn truncated_normal(u: f64) -> f64 {
    const BELOW_MINUS_THREE: f64 = 0.001_349_898_031_630_094_6;
    inverse_normal(BELOW_MINUS_THREE + u * (1.0 - 2.0 * BELOW_MINUS_THREE)).clamp(-3.0, 3.0)
}

/// Returns the quantile of the standard normal distribution, with a relative error of about 1e-9
/// (P. J. Acklam's rational approximation).
fn inverse_normal(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / (horner(&D, q) * q + 1.0)
    } else if p > 1.0 - 0.024_25 {
        -inverse_normal(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn inverse_normal_matches_known_quantiles() {
        for (p, x) in
            [(0.5, 0.0), (0.975, 1.959_963_985), (0.001_349_898, -3.0), (0.841_344_746, 1.0)]
        {
            assert!((inverse_normal(p) - x).abs() < 1e-6, "{p}");
        }
    }

    #[test]
    fn matrices_have_the_truncated_spread_for_any_number_of_threads_and_gains_are_one() {
        let config = ModelConfig {
            vocab_size: 101,
            d_model: 64,
            num_heads: 4,
            num_kv_heads: 2,
            d_ff: 100,
            num_layers: 1,
            max_seq_length: 8,
            theta: 10_000.0,
            qkv_bias: true,
            ..ModelConfig::PLAIN
        };
        let layout = Layout::new(&config);
        let draw = |threads, seed| {
            let mut weights = vec![0.0; layout.len];
            fill(&Pool::new(threads), &mut weights, &layout, seed);
            weights
        };
        let weights = draw(1, 5);
        assert!(weights == draw(3, 5));
        assert!(weights != draw(1, 6));
        for parameter in &layout.parameters {
            let values = &weights[parameter.range.clone()];
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let spread = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
            if parameter.is_matrix() {
                let std = (2.0 / parameter.file_shape.iter().sum::<usize>() as f32).sqrt();
                // Truncation at 3 std reduces the standard deviation to 0.9866 of what it was.
                assert!((spread / (0.9866 * std) - 1.0).abs() < 0.05, "{}", parameter.name);
                assert!(
                    mean.abs() < 0.1 * std
                        && values.iter().all(|v| v.abs() <= 3.0 * std * 1.000_001)
                );
            } else {
                let wanted = if parameter.is_bias() { 0.0 } else { 1.0 };
                assert!(values.iter().all(|v| *v == wanted));
            }
        }
    }
}
