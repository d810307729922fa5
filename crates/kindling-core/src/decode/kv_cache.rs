//! Keys (rotated) and values of the tokens seen, a row of the batch at a time, so that a new token costs one row of work.
//!
//! keys, values of a layer: (rows, capacity, nkv hs). The token at position p lies in slot p % capacity: beyond the capacity
//! it takes the oldest one's place (the rolling cache). Attention does not depend on the order of the slots.

use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::config::ModelConfig;
use crate::cuda::Rows;
use crate::device::Device;
use crate::model::PassContext;
use crate::ops::{self, attention, rope};

/// Keys and values of one layer.
#[derive(Debug)]
struct Layer {
    keys: Buffer,
    values: Buffer,
}

/// The cache of a batch.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Layer>,
    capacity: usize,
    /// nkv hs.
    width: usize,
    /// Tokens seen of each row: the position of its next one.
    positions: Vec<usize>,
}

impl KvCache {
    /// An empty cache of `capacity` tokens for each of `rows` rows.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
        capacity: usize,
    ) -> Result<Self> {
        let width = config.num_kv_heads * config.head_size();
        let zeros = || Buffer::zeros_of(device, rows * capacity * width, device.activation_dtype());
        let layer = |_| Ok(Layer { keys: zeros()?, values: zeros()? });
        let layers = (0..config.num_layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, capacity, width, positions: vec![0; rows] })
    }

    /// Tokens of `row` seen so far.
    pub fn position(&self, row: usize) -> usize {
        self.positions[row]
    }

    /// Takes a layer's keys and values of a whole pass over the first tokens of `row`: its qkv (t, w).
    pub(crate) fn fill(
        &mut self,
        device: &Device,
        layer: usize,
        row: usize,
        positions: usize,
        qkv: In,
    ) -> Result<()> {
        self.store(device, layer, row, 0, positions, qkv)
    }

    /// Says how many tokens of `row` were seen, after the last layer.
    pub(crate) fn set_position(&mut self, row: usize, position: usize) {
        self.positions[row] = position;
    }

    /// Takes the keys and values of `count` tokens of `row`, the first at `position`, from their qkv (count, w). They lie in
    /// slots one after the other.
    fn store(
        &mut self,
        device: &Device,
        layer: usize,
        row: usize,
        position: usize,
        count: usize,
        qkv: In,
    ) -> Result<()> {
        let (width, w) = (self.width, qkv.len() / count.max(1));
        let first = position % self.capacity;
        ops::check("KvCache::store", "slots", count, count.min(self.capacity - first))?;
        let start = (row * self.capacity + first) * width;
        let slots = start..start + count * width;
        let Layer { keys, values } = &mut self.layers[layer];
        match device {
            Device::Cpu(_) => {
                let slots = keys.host_mut()[slots.clone()]
                    .chunks_exact_mut(width)
                    .zip(values.host_mut()[slots].chunks_exact_mut(width));
                for (qkv, (keys, values)) in qkv.cpu().chunks_exact(w).zip(slots) {
                    let (new_keys, new_values) = qkv[w - 2 * width..].split_at(width);
                    keys.copy_from_slice(new_keys);
                    values.copy_from_slice(new_values);
                }
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

/// One new token of each of some rows, at their next positions.
#[derive(Debug)]
pub(crate) struct CacheStep<'a> {
    pub cache: &'a mut KvCache,
    /// The row of the cache of each row of the pass.
    pub rows: &'a [usize],
}

impl CacheStep<'_> {
    /// Rotates the queries and keys of qkv (n, w), keeps the keys and values, and attends: out (n, nh hs).
    pub fn attend(
        &mut self,
        context: &PassContext,
        layer: usize,
        mut qkv: Out,
        mut out: Out,
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
        let q_width = shape.out_width();
        for (index, &row) in self.rows.iter().enumerate() {
            let position = self.cache.positions[row];
            let mut qkv = qkv.again().slice(index * w..(index + 1) * w);
            rotate(context, qkv.again(), position)?;
            self.cache.store(context.device, layer, row, position, 1, qkv.read())?;
            let length = (position + 1).min(self.cache.capacity);
            let start = row * self.cache.capacity * self.cache.width;
            let seen = start..start + length * self.cache.width;
            let Layer { keys, values } = &self.cache.layers[layer];
            attention::decode(
                context.device,
                out.again().slice(index * q_width..(index + 1) * q_width),
                qkv.read().slice(0..q_width),
                keys.slice(seen.clone()),
                values.slice(seen),
                length,
                shape,
            )?;
        }
        Ok(())
    }

    /// Counts the new tokens, after the last layer.
    pub fn finish(self) {
        for &row in self.rows {
            self.cache.positions[row] += 1;
        }
    }
}

/// Rotates one row to `position`, which may lie beyond the model's tables.
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
        return rope::forward(context.device, qkv, context.cos.view(), context.sin.view(), shape);
    }
    let (cos, sin) = rope::angles(position, config.head_size(), config.theta);
    let (cos, sin) = (Buffer::of(context.device, &cos)?, Buffer::of(context.device, &sin)?);
    let shape = rope::Shape { first_position: 0, ..shape };
    rope::forward(context.device, qkv, cos.view(), sin.view(), shape)
}
