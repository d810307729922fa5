//! Converts between the two layouts of rotary embeddings in queries and keys.
//!
//! Kindling, Meta and GGUF's `llama` rotate neighbouring elements of a head: pairs (2i, 2i + 1).
//! Hugging Face and GGUF's other architectures rotate elements that are half a head apart: (i, i +
//! hs / 2). If the rows of each head's weights are reordered accordingly, the dot products of
//! queries and keys are the same. Biases, and gains of norms over a head, are reordered like the
//! rows.

/// Reorders `data`, which are heads of `head_size` rows of `row` elements, from halves to pairs.
pub fn to_pairs(data: &[f32], head_size: usize, row: usize) -> Vec<f32> {
    reorder(data, head_size, row, |r| r / 2 + r % 2 * (head_size / 2))
}

/// Reorders `data` from pairs to halves, the inverse of `to_pairs`.
pub fn to_halves(data: &[f32], head_size: usize, row: usize) -> Vec<f32> {
    let half = head_size / 2;
    reorder(data, head_size, row, |r| r % half * 2 + r / half)
}

/// Returns `data` reordered so that row r of each head is its former row `source(r)`.
fn reorder(
    data: &[f32],
    head_size: usize,
    row: usize,
    source: impl Fn(usize) -> usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len());
    for head in data.chunks_exact(head_size * row) {
        for r in 0..head_size {
            out.extend_from_slice(&head[source(r) * row..][..row]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_take_one_row_of_each_half_in_turn() {
        let halves: Vec<f32> = (0..24).map(|n| n as f32).collect();
        // Two heads of six rows of two.
        let pairs = to_pairs(&halves, 6, 2);
        let rows: Vec<f32> = pairs.chunks(2).map(|row| row[0] / 2.0).collect();
        assert_eq!(rows, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
        assert_eq!(to_halves(&pairs, 6, 2), halves);
    }
}
