//! The key/value cache, with which a decode step computes one row per sequence instead of a whole
//! pass.
//!
//! Each layer has keys (rotated) and values, both (rows, capacity, nkv hs).
//!
//! ```text
//! decode step of a row at position p:            capacity 4, after positions 0..=5:
//!     rotate q and k of the new token to p
//!     slot p % capacity := k, v                  slot      0  1  2  3
//!     attend to slots 0..min(p + 1, capacity)    position  4  5  2  3
//! ```
//!
//! 1. Position p goes to slot p % capacity. Below the capacity that appends; beyond it the newest
//!    token overwrites the oldest (the rolling cache), and nothing moves.
//! 2. Attention sums over keys, so the order of the slots does not matter, and no causal mask is
//!    needed: no cached token comes after the query.
//! 3. Keys are cached after rotation. A score depends only on the distance between two rotations,
//!    so a key stays valid while the query's position grows past the model's tables (`rotate`).
//! 4. A rolling cache is not equal to a pass over the last `capacity` tokens: above the first
//!    block, cached keys and values still depend on tokens that have left the window. `Generator`
//!    therefore runs whole passes once the window slides, unless told otherwise.

use super::pass::PassContext;
use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::config::ModelConfig;
use crate::cuda::Rows;
use crate::device::Device;
use crate::ops::{self, RowsMut, Tasks, attention, rope, split_rows};

#[derive(Debug)]
struct LayerCache {
    keys: Buffer,
    values: Buffer,
}

/// Keys and values of every layer for the rows of a batch.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<LayerCache>,
    /// Tokens per row.
    capacity: usize,
    /// Elements of one token's keys: nkv hs.
    width: usize,
    /// Position of the next token of each row.
    positions: Vec<usize>,
}

impl KvCache {
    /// Creates an empty cache of `capacity` tokens for each of `rows` rows.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device has too little memory.
    pub(crate) fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
        capacity: usize,
    ) -> Result<Self> {
        let width = config.num_kv_heads * config.head_size();
        let zeros = || Buffer::zeros_of(device, rows * capacity * width, device.activation_dtype());
        let layer = |_| Ok(LayerCache { keys: zeros()?, values: zeros()? });
        let layers = (0..config.num_layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, capacity, width, positions: vec![0; rows] })
    }

    /// Copies the keys and values of the first tokens of `row` from the qkv (positions, w) of a
    /// whole pass.
    pub(super) fn fill(
        &mut self,
        device: &Device,
        layer: usize,
        row: usize,
        positions: usize,
        qkv: In,
    ) -> Result<()> {
        self.store(device, layer, Span { row, position: 0, count: positions }, qkv)
    }

    /// Sets the position of the next token of `row`; called after the last layer.
    pub(super) fn set_position(&mut self, row: usize, position: usize) {
        self.positions[row] = position;
    }

    /// Copies the keys and values in qkv (count, w) to consecutive slots.
    fn store(&mut self, device: &Device, layer: usize, span: Span, qkv: In) -> Result<()> {
        let Span { row, position, count } = span;
        let (width, w) = (self.width, qkv.len() / count.max(1));
        let first = position % self.capacity;
        ops::check("KvCache::store", "slots", count, count.min(self.capacity - first))?;
        let start = (row * self.capacity + first) * width;
        let slots = start..start + count * width;
        let LayerCache { keys, values } = &mut self.layers[layer];
        match device {
            Device::Cpu(cpu) => {
                let qkv = qkv.cpu();
                let slots = (
                    RowsMut::new(&mut keys.host_mut()[slots.clone()], width),
                    RowsMut::new(&mut values.host_mut()[slots], width),
                );
                let tasks = Tasks::of_rows(count, 2 * width);
                split_rows(&cpu.pool, tasks, slots, |tokens, (keys, values)| {
                    let slots = keys.chunks_exact_mut(width).zip(values.chunks_exact_mut(width));
                    for (token, (keys, values)) in tokens.zip(slots) {
                        let kv = &qkv[(token + 1) * w - 2 * width..(token + 1) * w];
                        keys.copy_from_slice(&kv[..width]);
                        values.copy_from_slice(&kv[width..]);
                    }
                });
                Ok(())
            }
            Device::Cuda(gpu) => {
                let size = qkv.dtype().size();
                let from = qkv.pointer() + ((w - 2 * width) * size) as u64;
                for (memory, offset) in [(keys, 0), (values, width * size)] {
                    let to = Rows {
                        pointer: memory.slice_mut(slots.clone()).pointer(),
                        pitch: width * size,
                    };
                    let from = Rows { pointer: from + offset as u64, pitch: w * size };
                    gpu.copy_rows(to, from, width * size, count)?;
                }
                Ok(())
            }
        }
    }
}

/// `count` tokens of a row, the first at `position`.
#[derive(Clone, Copy)]
struct Span {
    row: usize,
    position: usize,
    count: usize,
}

/// A decode step: the next token of some rows of the cache, each at its own position.
#[derive(Debug)]
pub(crate) struct CacheStep<'a> {
    pub cache: &'a mut KvCache,
    /// Row i of the pass continues row `rows[i]` of the cache.
    pub rows: &'a [usize],
}

impl CacheStep<'_> {
    /// Rotates the queries and keys in qkv (n, w), caches the keys and values, and writes the
    /// heads' outputs to out (n, nh hs).
    pub(super) fn attend(
        &mut self,
        context: &PassContext,
        layer: usize,
        mut qkv: Out,
        out: Out,
    ) -> Result<()> {
        let config = context.config;
        let (w, head_size) = (config.qkv_width(), config.head_size());
        let shape = attention::Shape {
            batch: 1,
            positions: 1,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_size,
        };
        let capacity = self.cache.capacity;
        let mut cached = Vec::with_capacity(self.rows.len());
        for (index, &row) in self.rows.iter().enumerate() {
            let position = self.cache.positions[row];
            let mut qkv = qkv.reborrow().slice(index * w..(index + 1) * w);
            rotate(context, qkv.reborrow(), position)?;
            let span = Span { row, position, count: 1 };
            self.cache.store(context.device, layer, span, qkv.read())?;
            let length = (position + 1).min(capacity);
            cached.push(row * capacity..row * capacity + length);
        }
        let LayerCache { keys, values } = &self.cache.layers[layer];
        attention::decode(
            context.device,
            attention::Decode {
                out,
                qkv: qkv.read(),
                keys: keys.view(),
                values: values.view(),
                cached: &cached,
                shape,
            },
        )
    }

    /// Advances the position of every row; called after the last layer.
    pub(super) fn finish(self) {
        for &row in self.rows {
            self.cache.positions[row] += 1;
        }
    }
}

/// Rotates the queries and keys of one row to `position`, which may lie past the model's tables.
fn rotate(context: &PassContext, qkv: Out, position: usize) -> Result<()> {
    let config = context.config;
    let shape = rope::Shape {
        rows: 1,
        row_width: config.qkv_width(),
        heads: config.num_heads + config.num_kv_heads,
        head_size: config.head_size(),
        positions: 1,
        first_position: position,
    };
    if position < config.max_seq_length {
        return rope::forward(
            context.device,
            rope::Forward { x: qkv, cos: context.cos.view(), sin: context.sin.view(), shape },
        );
    }
    let (cos, sin) = config.angles().at(position);
    let (cos, sin) = (Buffer::of(context.device, &cos)?, Buffer::of(context.device, &sin)?);
    let shape = rope::Shape { first_position: 0, ..shape };
    rope::forward(context.device, rope::Forward { x: qkv, cos: cos.view(), sin: sin.view(), shape })
}
