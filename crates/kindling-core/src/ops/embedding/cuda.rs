//! CUDA implementation: launches of the kernels in `cuda.cu`, and the grouping of rows by id that
//! the backward pass reads.
//!
//! The groups give each sum one fixed order. Atomic additions would add in a different order in
//! each run.

use super::Shape;
use crate::cuda::{Arg, Launch};

/// The rows of a batch grouped by id, as one array of i32 that is uploaded at once.
///
/// Sections: rows in the order of their ids (rows), start of each group in it (rows + 1), id of
/// each group (rows), number of groups (1). Each has its full length, however many groups there
/// are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    pub data: Vec<i32>,
}

impl Groups {
    /// Returns the length of `data` for a batch of `rows`.
    pub fn len_of(rows: usize) -> usize {
        3 * rows + 2
    }

    /// Groups the rows of `ids`, keeping their order within a group. `counts` is scratch memory.
    ///
    /// # Panics
    /// Panics if an id is outside the vocabulary, which the op has checked.
    pub fn of(ids: &[u32], vocab_size: usize, counts: &mut Vec<u32>) -> Self {
        let rows = ids.len();
        counts.clear();
        counts.resize(vocab_size, 0);
        for &id in ids {
            counts[id as usize] += 1;
        }
        let mut data = vec![0; Self::len_of(rows)];
        let (order, rest) = data.split_at_mut(rows);
        let (starts, rest) = rest.split_at_mut(rows + 1);
        let (group_ids, groups) = rest.split_at_mut(rows);
        let (mut next, mut group) = (0u32, 0);
        // Each count becomes the index in `order` of the group's next row.
        for (id, count) in counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            group_ids[group] = id as i32;
            starts[group] = next as i32;
            group += 1;
            next += std::mem::replace(count, next);
        }
        starts[group] = next as i32;
        groups[0] = group as i32;
        for (row, &id) in ids.iter().enumerate() {
            let next = &mut counts[id as usize];
            order[*next as usize] = row as i32;
            *next += 1;
        }
        Self { data }
    }
}

/// Device addresses of the buffers of `forward`.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    pub out: u64,
    /// i32.
    pub ids: u64,
    pub weight: u64,
}

/// Builds the launch that computes out[row] = weight[ids[row]], in f32.
pub fn forward(addresses: Forward, s: Shape) -> Launch {
    let Forward { out, ids, weight } = addresses;
    Launch {
        kernel: "embedding_forward",
        grid: [s.rows.div_ceil(8) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(out),
            Arg::Pointer(ids),
            Arg::Pointer(weight),
            s.rows.into(),
            s.d_model.into(),
        ],
    }
}

/// Device addresses of the buffers of `backward`.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    pub dweight: u64,
    pub dout: u64,
    /// `Groups::data`.
    pub groups: u64,
}

/// Builds the launch that adds to dweight[id] the sum of dout over the rows of each id.
pub fn backward(addresses: Backward, s: Shape) -> Launch {
    let Backward { dweight, dout, groups } = addresses;
    let section = |elements: usize| Arg::Pointer(groups + 4 * elements as u64);
    Launch {
        kernel: "embedding_backward",
        grid: [s.rows.min(s.vocab_size).div_ceil(8) as u32, s.d_model.div_ceil(128) as u32, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dweight),
            Arg::Pointer(dout),
            section(0),
            section(s.rows),
            section(2 * s.rows + 1),
            section(3 * s.rows + 1),
            s.d_model.into(),
        ],
    }
}
