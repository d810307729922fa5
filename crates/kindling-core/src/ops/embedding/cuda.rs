//! CUDA half: launches of `cuda.cu`, and the grouping of rows by id that its backward pass reads: with it a sum has one
//! order, where atomic additions would have a new one each run.

use super::Shape;
use crate::cuda::{Arg, Launch};

/// The rows of a batch, grouped by id: what `backward` reads, in one block of i32 that is uploaded with the batch.
/// Sections, each of its full length: order (rows), starts (rows + 1), ids of the groups (rows), number of groups (1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// All sections, one after the other.
    pub data: Vec<i32>,
}

impl Groups {
    /// Length of `data` for a batch of `rows`.
    pub fn len_of(rows: usize) -> usize {
        3 * rows + 2
    }

    /// Groups the rows of `ids`, in their order. `counts` is scratch, resized to the vocabulary.
    ///
    /// # Panics
    /// Where an id is outside the vocabulary (checked by the op before).
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
        // Counts become the places where the groups' next rows go.
        for (id, count) in counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            group_ids[group] = id as i32;
            starts[group] = next as i32;
            group += 1;
            next += std::mem::replace(count, next);
        }
        starts[group] = next as i32;
        groups[0] = group as i32;
        for (row, &id) in ids.iter().enumerate() {
            let place = &mut counts[id as usize];
            order[*place as usize] = row as i32;
            *place += 1;
        }
        Self { data }
    }
}

/// out[row] = weight[ids[row]]; all f32, ids i32.
pub fn forward(out: u64, ids: u64, weight: u64, s: Shape) -> Launch {
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

/// dweight[id] += the sum of dout over the rows of the id; `groups` points to `Groups::data` on the device.
pub fn backward(dweight: u64, dout: u64, groups: u64, s: Shape) -> Launch {
    let section = |elements: usize| Arg::Pointer(groups + 4 * elements as u64);
    Launch {
        kernel: "embedding_backward",
        grid: [s.rows.min(s.vocab_size) as u32, s.d_model.div_ceil(128) as u32, 1],
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
