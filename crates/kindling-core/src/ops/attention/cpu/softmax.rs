//! Elementwise work on a tile of scores (keys, queries): softmax, its gradient, the causal mask.

use super::tile::BLOCK;
use crate::simd::{LANES, Vector, exp};

/// Sixteen zeros, then sixteen ones: a window of it masks the queries before a key.
const MASKS: [f32; 2 * LANES] = {
    let mut masks = [0.0; 2 * LANES];
    let mut i = LANES;
    while i < 2 * LANES {
        masks[i] = 1.0;
        i += 1;
    }
    masks
};

/// Returns 1 in the lanes from `first` on (queries that see the key) and 0 before.
#[inline(always)]
fn mask_from<V: Vector>(first: usize) -> V {
    V::load(&MASKS[LANES - first..])
}

/// Returns how many keys all of the sixteen queries from `column` on see, and how many any of them
/// sees. Keys in between need the mask.
#[inline(always)]
fn visible_keys(column: usize, keys: usize, diagonal: bool) -> (usize, usize) {
    if diagonal { ((column + 1).min(keys), (column + LANES).min(keys)) } else { (keys, keys) }
}

/// Replaces scores by exponentials of their distance to the running maximum, one step of the online
/// softmax. `running` holds maxima, sums and (written) the factors by which earlier sums shrink,
/// `BLOCK` each.
#[inline(always)]
pub(super) fn softmax_tile<V: Vector>(
    scores: &mut [f32],
    running: &mut [f32],
    keys: usize,
    queries: usize,
    diagonal: bool,
) {
    let (maxima, running) = running.split_at_mut(BLOCK);
    let (sums, shrink) = running.split_at_mut(BLOCK);
    let hidden = V::splat(-1e30);
    let one = V::splat(1.0);
    for column in (0..queries).step_by(LANES) {
        let (full, part) = visible_keys(column, keys, diagonal);
        let before = V::load(&maxima[column..]);
        let mut max = before;
        for key in 0..full {
            max = max.max(V::load(&scores[key * BLOCK + column..]));
        }
        for key in full..part {
            let penalty = one.sub(mask_from::<V>(key - column)).mul(hidden);
            max = max.max(V::load(&scores[key * BLOCK + column..]).add(penalty));
        }
        let mut sum = V::splat(0.0);
        for key in 0..full {
            let lanes = &mut scores[key * BLOCK + column..];
            let e = exp(V::load(lanes).sub(max));
            e.store(lanes);
            sum = sum.add(e);
        }
        for key in full..part {
            let lanes = &mut scores[key * BLOCK + column..];
            let e = exp(V::load(lanes).sub(max)).mul(mask_from::<V>(key - column));
            e.store(lanes);
            sum = sum.add(e);
        }
        let factor = exp(before.sub(max));
        max.store(&mut maxima[column..]);
        factor.store(&mut shrink[column..]);
        V::load(&sums[column..]).mul_add(factor, sum).store(&mut sums[column..]);
    }
}

/// Replaces scores by probabilities, and the probabilities' gradients by those of the unscaled
/// scores. `size` is keys and queries.
#[inline(always)]
pub(super) fn softmax_gradient_tile<V: Vector>(
    scores: &mut [f32],
    dscores: &mut [f32],
    lse: &[f32],
    delta: &[f32],
    scale: f32,
    [keys, queries]: [usize; 2],
    diagonal: bool,
) {
    let scale = V::splat(scale);
    for column in (0..queries).step_by(LANES) {
        let (full, part) = visible_keys(column, keys, diagonal);
        let (lse, delta) = (V::load(&lse[column..]), V::load(&delta[column..]));
        for key in 0..part {
            let at = key * BLOCK + column;
            let mut p = exp(V::load(&scores[at..]).sub(lse));
            if key >= full {
                p = p.mul(mask_from::<V>(key - column));
            }
            let slope = V::load(&dscores[at..]).sub(delta).mul(scale);
            p.mul(slope).store(&mut dscores[at..]);
            p.store(&mut scores[at..]);
        }
    }
}
