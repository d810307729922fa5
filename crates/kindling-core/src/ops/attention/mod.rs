//! Causal attention. out = softmax(q k^T / sqrt(hs), keys up to the query's position) v, a head at a time.
//!
//! qkv, dqkv: (b t, (nh + 2 nkv) hs), each row all queries, all keys, all values; out, dout: (b t, nh hs);
//! On the CPU out may be bf16 where products are. lse: (b, nh, t), saved: log of the sum of exponentials of a query's scaled scores. Query head h reads key/value head
//! h / (nh / nkv). Scores are never stored: backward makes them again from q, k and lse (arXiv 2205.14135).
//! With p the probabilities, delta = sum(dout out): dv = p^T dout, ds = p (dout v^T - delta) / sqrt(hs), dq = ds k, dk = ds^T q.

mod cpu;
pub mod cuda;
mod decode;
mod head_layout;
mod heads;
pub mod reference;
mod tile;

use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, with_dirty_scratch};
use crate::profile::Span;
use crate::simd::bf16::round_all;
use crate::{Error, Result};

/// Blocks of a launch in y and in z.
const MOST_BLOCKS: usize = 65_535;

/// Sizes of attention.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Positions of a sequence.
    pub positions: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_size: usize,
}

impl Shape {
    /// Width of a row of qkv.
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_size
    }

    /// Width of a row of out.
    pub fn out_width(&self) -> usize {
        self.num_heads * self.head_size
    }

    /// Query heads of one key/value head.
    fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Counts `products` causal products of scores' size to `op`.
    fn span<'a>(&self, dev: &'a Device, op: &'static str, products: f64) -> Span<'a> {
        let multiply_adds =
            self.batch * self.num_heads * self.positions * self.positions / 2 * self.head_size;
        dev.profile().product(op, || (String::new(), 2.0 * products * multiply_adds as f64))
    }

    fn check(&self, op: &'static str) -> Result<()> {
        check(
            op,
            "num_heads (a multiple of num_kv_heads)",
            self.group() * self.num_kv_heads,
            self.num_heads,
        )
    }

    /// Says whether there are CUDA kernels for these sizes.
    fn check_cuda(&self, op: &'static str) -> Result<()> {
        if self.head_size <= cuda::MOST_HEAD_SIZE && self.num_heads.max(self.batch) <= MOST_BLOCKS {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "{op} on cuda takes heads of at most {} and at most {MOST_BLOCKS} heads and sequences; the model has {} heads of {} and a batch of {}",
            cuda::MOST_HEAD_SIZE,
            self.num_heads,
            self.head_size,
            self.batch
        )))
    }
}

/// out and lse of every query.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward(dev: &Device, out: Out, lse: Out, qkv: In, s: Shape) -> Result<()> {
    const OP: &str = "attention::forward";
    s.check(OP)?;
    let rows = s.batch * s.positions;
    check(OP, "qkv", rows * s.qkv_width(), qkv.len())?;
    check(OP, "out", rows * s.out_width(), out.len())?;
    check(OP, "lse", rows * s.num_heads, lse.len())?;
    let _span = s.span(dev, OP, 2.0);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out, lse.cpu(), qkv.cpu(), s),
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            gpu.run(&[cuda::forward(qkv.dtype(), out.pointer(), lse.pointer(), qkv.pointer(), s)])?;
        }
    }
    Ok(())
}

/// dqkv = gradients of queries, keys and values.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward(
    dev: &Device,
    dqkv: Out,
    dout: In,
    qkv: In,
    out: In,
    lse: In,
    s: Shape,
) -> Result<()> {
    const OP: &str = "attention::backward";
    s.check(OP)?;
    let rows = s.batch * s.positions;
    check(OP, "qkv", rows * s.qkv_width(), qkv.len())?;
    check(OP, "dqkv", rows * s.qkv_width(), dqkv.len())?;
    check(OP, "out", rows * s.out_width(), out.len())?;
    check(OP, "dout", rows * s.out_width(), dout.len())?;
    check(OP, "lse", rows * s.num_heads, lse.len())?;
    let _span = s.span(dev, OP, 5.0);
    match dev {
        Device::Cpu(cpu) => {
            let dqkv = dqkv.cpu();
            dqkv.copy_from_slice(qkv.cpu());
            cpu::backward_in_place(cpu, dqkv, dout.cpu(), out, lse.cpu(), s);
        }
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            let [delta] = gpu.scratch([size_of::<f32>() * lse.len()])?;
            gpu.run(&cuda::backward(
                qkv.dtype(),
                dqkv.pointer(),
                delta,
                dout.pointer(),
                qkv.pointer(),
                out.pointer(),
                lse.pointer(),
                s,
            ))?;
        }
    }
    Ok(())
}

/// As `backward`, the gradients in place of queries, keys and values.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape; `ERR_UNSUPPORTED` on another device than the CPU.
pub fn backward_in_place(
    dev: &Device,
    qkv: Out,
    dout: In,
    out: In,
    lse: In,
    s: Shape,
) -> Result<()> {
    const OP: &str = "attention::backward_in_place";
    s.check(OP)?;
    let rows = s.batch * s.positions;
    check(OP, "qkv", rows * s.qkv_width(), qkv.len())?;
    check(OP, "out", rows * s.out_width(), out.len())?;
    check(OP, "dout", rows * s.out_width(), dout.len())?;
    check(OP, "lse", rows * s.num_heads, lse.len())?;
    let _span = s.span(dev, "attention::backward", 5.0);
    match dev {
        Device::Cpu(cpu) => cpu::backward_in_place(cpu, qkv.cpu(), dout.cpu(), out, lse.cpu(), s),
        Device::Cuda(_) => return Err(Error::Unsupported(format!("{OP} is for the CPU"))),
    }
    Ok(())
}

/// One query against the cache. q, out: (nh hs); keys, values: (length, nkv hs). `batch` and `positions` are not read.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn decode(
    dev: &Device,
    out: Out,
    q: In,
    keys: In,
    values: In,
    length: usize,
    s: Shape,
) -> Result<()> {
    const OP: &str = "attention::decode";
    s.check(OP)?;
    check(OP, "q", s.out_width(), q.len())?;
    check(OP, "out", s.out_width(), out.len())?;
    check(OP, "keys", length * s.num_kv_heads * s.head_size, keys.len())?;
    check(OP, "values", length * s.num_kv_heads * s.head_size, values.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => {
            let work = |out: &mut [f32]| {
                decode::decode(cpu, out, q.cpu(), keys.cpu(), values.cpu(), length, s)
            };
            match out {
                Out::CpuBf16(out) => with_dirty_scratch(out.len(), |wide| {
                    work(wide);
                    round_all(out, wide);
                }),
                out => work(out.cpu()),
            }
        }
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            let (dtype, keys, values) = (q.dtype(), keys.pointer(), values.pointer());
            gpu.run(&[cuda::decode(dtype, out.pointer(), q.pointer(), keys, values, length, s)])?;
        }
    }
    Ok(())
}
