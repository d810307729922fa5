//! Batches: token ids and targets in native memory.

use std::sync::Arc;

use kindling_core::{Error, data};
use napi::bindgen_prelude::Int32Array;

use crate::error::to_napi;

/// A batch in native memory; `src/batch.ts` is the public class.
#[napi]
pub struct Batch {
    pub(crate) inner: Arc<data::Batch>,
}

#[napi]
impl Batch {
    /// Creates a batch of `batchSize` rows from flat arrays of equal length: token ids `x`, and
    /// `y`, the token that follows each id. A target of -100 is excluded from the loss.
    ///
    /// Throws `ERR_TOKEN_OUT_OF_RANGE` for a negative id, `ERR_SHAPE_MISMATCH` if the lengths
    /// differ, and `ERR_INVALID_ARGUMENT` if the rows are empty or unequal.
    #[napi(factory, catch_unwind)]
    pub fn from_arrays(x: Int32Array, y: Int32Array, batch_size: u32) -> napi::Result<Self> {
        let x = x.iter().zip(0..).map(|(&id, position)| {
            u32::try_from(id).map_err(|_| Error::NegativeTokenId { id, position })
        });
        let x = x.collect::<Result<Vec<_>, _>>().map_err(to_napi)?;
        let inner = data::Batch::new(x, y.to_vec(), batch_size as usize).map_err(to_napi)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A copy of the token ids, `batchSize` x `seqLength`, row-major.
    #[napi(getter, catch_unwind)]
    pub fn x(&self) -> Int32Array {
        self.inner.x.iter().map(|&id| id as i32).collect::<Vec<_>>().into()
    }

    /// A copy of the targets, `batchSize` x `seqLength`, row-major.
    #[napi(getter, catch_unwind)]
    pub fn y(&self) -> Int32Array {
        self.inner.targets.clone().into()
    }

    /// Number of rows.
    #[napi(getter, catch_unwind)]
    pub fn batch_size(&self) -> u32 {
        self.inner.batch_size as u32
    }

    /// Tokens per row.
    #[napi(getter, catch_unwind)]
    pub fn seq_length(&self) -> u32 {
        self.inner.seq_length as u32
    }
}
