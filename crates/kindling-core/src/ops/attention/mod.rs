//! Causal attention, for each head: out = softmax(q k^T / sqrt(hs)) v, over the keys up to the
//! query's own position.
//!
//! - qkv, dqkv: (b t, (nh + 2 nkv) hs); a row holds all queries, then all keys, then all values.
//! - out, dout: (b t, nh hs). On the CPU out may be bf16, if the products are.
//! - lse: (b, nh, t), saved for backward: log of the sum of exponentials of a query's scaled
//!   scores.
//!
//! Query head h reads key/value head h / (nh / nkv).
//!
//! Backward, with p the probabilities and delta = sum(dout out) of each query:
//! dv = p^T dout, ds = p (dout v^T - delta) / sqrt(hs), dq = ds k, dk = ds^T q. dq and dk can be
//! rotated by the negative angles of `rope`; on CUDA this happens as they are written, which saves
//! a pass over dqkv.
//!
//! Scores are not saved. Backward recomputes them from q, k and lse (`FlashAttention`,
//! <https://arxiv.org/abs/2205.14135>).
//!
//! Where the CPU multiplies in bf16, q, k, v, dout, p and ds are rounded to bf16 for products.
//! Decoding, which is one pass over the cache, is f32.

mod cpu;
pub mod cuda;
pub mod reference;

use std::ops::Range;

use crate::buffer::{In, Out};
use crate::cpu::MatmulBackend;
use crate::device::Device;
use crate::ops::{check, check_positive, rope, with_dirty_scratch};
use crate::profile::Span;
use crate::simd::bf16::round_all;
use crate::{Error, Result};

/// Maximum grid size of a CUDA launch in y and in z.
const MAX_GRID_YZ: usize = 65_535;

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
    pub head_size: usize,
}

impl Shape {
    /// Columns of qkv.
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_size
    }

    /// Columns of out.
    pub fn out_width(&self) -> usize {
        self.num_heads * self.head_size
    }

    /// Returns the f32 elements of scratch memory that a training step needs on each CPU thread.
    pub(crate) fn cpu_scratch_len(self, matmul: MatmulBackend) -> usize {
        cpu::scratch_len(self, matmul)
    }

    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    fn rows(&self) -> usize {
        self.batch * self.positions
    }

    /// Shape of the rotation of queries and keys.
    fn rotated(&self) -> rope::Shape {
        rope::Shape {
            rows: self.rows(),
            row_width: self.qkv_width(),
            heads: self.num_heads + self.num_kv_heads,
            head_size: self.head_size,
            positions: self.positions,
            first_position: 0,
        }
    }

    /// Starts a profile span of `op`, counted as `products` causal products of the scores' size.
    fn span<'a>(&self, dev: &'a Device, op: &'static str, products: f64) -> Span<'a> {
        let multiply_adds =
            self.batch * self.num_heads * self.positions * self.positions / 2 * self.head_size;
        dev.profile().product(op, || (String::new(), 2.0 * products * multiply_adds as f64))
    }

    fn check(&self, op: &'static str) -> Result<()> {
        check_positive(op, "num_heads", self.num_heads)?;
        check_positive(op, "num_kv_heads", self.num_kv_heads)?;
        check_positive(op, "head_size", self.head_size)?;
        check(
            op,
            "num_heads (a multiple of num_kv_heads)",
            self.group() * self.num_kv_heads,
            self.num_heads,
        )
    }

    /// Checks that there are CUDA kernels for these sizes.
    fn check_cuda(&self, op: &'static str) -> Result<()> {
        let Self { batch, num_heads, head_size, .. } = *self;
        if head_size <= cuda::MAX_HEAD_SIZE && num_heads.max(batch) <= MAX_GRID_YZ {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "{op} on cuda takes head sizes up to {} and up to {MAX_GRID_YZ} heads and sequences; \
             the model has {num_heads} heads of size {head_size} and a batch of {batch}",
            cuda::MAX_HEAD_SIZE,
        )))
    }
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub lse: Out<'a>,
    pub qkv: In<'a>,
    pub shape: Shape,
}

/// Computes out and lse of every query.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, `ERR_INVALID_ARGUMENT` if a
/// number of heads or the head size is 0, and `ERR_UNSUPPORTED` if CUDA has no kernel for the
/// shape.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "attention::forward";
    let s = args.shape;
    s.check(OP)?;
    check(OP, "qkv", s.rows() * s.qkv_width(), args.qkv.len())?;
    check(OP, "out", s.rows() * s.out_width(), args.out.len())?;
    check(OP, "lse", s.rows() * s.num_heads, args.lse.len())?;
    let _span = s.span(dev, OP, 2.0);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, args),
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            let addresses = cuda::Forward {
                out: args.out.pointer(),
                lse: args.lse.pointer(),
                qkv: args.qkv.pointer(),
            };
            let hopper = gpu.properties().is_hopper();
            gpu.run(&[cuda::forward(args.qkv.dtype(), addresses, s, hopper)])?;
        }
    }
    Ok(())
}

/// Buffers of `backward`.
#[derive(Debug)]
pub struct Backward<'a> {
    pub dqkv: Out<'a>,
    pub dout: In<'a>,
    pub qkv: In<'a>,
    pub out: In<'a>,
    pub lse: In<'a>,
    /// Tables of the rotation that queries and keys went through, if any.
    pub rotation: Option<Rotation<'a>>,
    pub shape: Shape,
}

/// Tables of `rope`, (positions, hs) each.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    pub cos: In<'a>,
    pub sin: In<'a>,
}

impl Rotation<'_> {
    fn check(&self, op: &'static str, s: Shape) -> Result<()> {
        let needed = s.positions * s.head_size;
        check(op, "cos", needed, self.cos.len().min(needed))?;
        check(op, "sin", needed, self.sin.len().min(needed))?;
        check(op, "head (even size)", s.head_size / 2 * 2, s.head_size)
    }
}

/// Computes dqkv, the gradients of queries, keys and values before their rotation.
///
/// # Errors
/// As for `forward`.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "attention::backward";
    let Backward { dqkv, dout, qkv, out, lse, rotation, shape: s } = args;
    s.check(OP)?;
    check(OP, "qkv", s.rows() * s.qkv_width(), qkv.len())?;
    check(OP, "dqkv", s.rows() * s.qkv_width(), dqkv.len())?;
    check(OP, "out", s.rows() * s.out_width(), out.len())?;
    check(OP, "dout", s.rows() * s.out_width(), dout.len())?;
    check(OP, "lse", s.rows() * s.num_heads, lse.len())?;
    if let Some(rotation) = &rotation {
        rotation.check(OP, s)?;
    }
    let span = s.span(dev, OP, 5.0);
    match dev {
        Device::Cpu(cpu) => {
            let dqkv = dqkv.cpu();
            dqkv.copy_from_slice(qkv.cpu());
            let qkv = Out::Cpu(&mut *dqkv);
            cpu::backward_in_place(cpu, BackwardInPlace { qkv, dout, out, lse, shape: s });
            drop(span);
            if let Some(Rotation { cos, sin }) = rotation {
                let dx = Out::Cpu(dqkv);
                rope::backward(dev, rope::Backward { dx, cos, sin, shape: s.rotated() })?;
            }
        }
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            let dtype = qkv.dtype();
            let hopper = gpu.properties().is_hopper();
            let [delta, dq] = gpu.scratch(
                [lse.len(), cuda::dq_len(dtype, s, hopper)].map(|len| size_of::<f32>() * len),
            )?;
            let addresses = cuda::Backward {
                dqkv: dqkv.pointer(),
                delta,
                dq,
                turns: gpu.zeroed_counters(cuda::turns_len(dtype, s, hopper))?,
                dout: dout.pointer(),
                qkv: qkv.pointer(),
                out: out.pointer(),
                lse: lse.pointer(),
                cos: rotation.map_or(0, |tables| tables.cos.pointer()),
                sin: rotation.map_or(0, |tables| tables.sin.pointer()),
            };
            gpu.run(&cuda::backward(dtype, addresses, s, hopper))?;
        }
    }
    Ok(())
}

/// Buffers of `backward_in_place`. qkv is replaced by its gradient.
#[derive(Debug)]
pub struct BackwardInPlace<'a> {
    pub qkv: Out<'a>,
    pub dout: In<'a>,
    pub out: In<'a>,
    pub lse: In<'a>,
    pub shape: Shape,
}

/// Like `backward`, with the gradients replacing queries, keys and values. CPU only.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, `ERR_INVALID_ARGUMENT` if a
/// number of heads or the head size is 0, and `ERR_UNSUPPORTED` if the device is not the CPU.
pub fn backward_in_place(dev: &Device, args: BackwardInPlace) -> Result<()> {
    const OP: &str = "attention::backward_in_place";
    let s = args.shape;
    s.check(OP)?;
    check(OP, "qkv", s.rows() * s.qkv_width(), args.qkv.len())?;
    check(OP, "out", s.rows() * s.out_width(), args.out.len())?;
    check(OP, "dout", s.rows() * s.out_width(), args.dout.len())?;
    check(OP, "lse", s.rows() * s.num_heads, args.lse.len())?;
    let _span = s.span(dev, "attention::backward", 5.0);
    match dev {
        Device::Cpu(cpu) => cpu::backward_in_place(cpu, args),
        Device::Cuda(_) => return Err(Error::Unsupported(format!("{OP} runs on the CPU only"))),
    }
    Ok(())
}

/// Buffers of `decode`: one query per head of each row, against the row's cached keys and values.
#[derive(Debug)]
pub struct Decode<'a> {
    /// (rows, nh hs).
    pub out: Out<'a>,
    /// (rows, (nh + 2 nkv) hs), of which only the queries are read.
    pub qkv: In<'a>,
    /// (tokens, nkv hs).
    pub keys: In<'a>,
    /// (tokens, nkv hs).
    pub values: In<'a>,
    /// For each row, the tokens of the cache that it attends to.
    pub cached: &'a [Range<usize>],
    /// `batch` and `positions` are not used.
    pub shape: Shape,
}

/// Computes the attention of one token of each row to the row's cached tokens, all of which it may
/// see.
///
/// # Errors
/// As for `forward`.
pub fn decode(dev: &Device, args: Decode) -> Result<()> {
    const OP: &str = "attention::decode";
    let Decode { out, qkv, keys, values, cached, shape: s } = args;
    s.check(OP)?;
    let (rows, width) = (cached.len(), s.num_kv_heads * s.head_size);
    let end = width * cached.iter().map(|tokens| tokens.end).max().unwrap_or(0);
    check(OP, "qkv", rows * s.qkv_width(), qkv.len())?;
    check(OP, "out", rows * s.out_width(), out.len())?;
    check(OP, "keys", end, keys.len().min(end))?;
    check(OP, "values", end, values.len().min(end))?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => {
            let (qkv, keys, values) = (qkv.cpu(), keys.cpu(), values.cpu());
            let inputs = cpu::DecodeInputs { qkv, keys, values, cached, shape: s };
            match out {
                Out::CpuBf16(out) => with_dirty_scratch(out.len(), |out_f32| {
                    cpu::decode(cpu, out_f32, inputs);
                    round_all(out, out_f32);
                }),
                out => cpu::decode(cpu, out.cpu(), inputs),
            }
        }
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            let (mut out, out_width) = (out, s.out_width());
            for (row, tokens) in cached.iter().enumerate() {
                let of_row = width * tokens.start..width * tokens.end;
                let out = out.reborrow().slice(row * out_width..(row + 1) * out_width);
                let addresses = cuda::Decode {
                    out: out.pointer(),
                    q: qkv.slice(row * s.qkv_width()..(row + 1) * s.qkv_width()).pointer(),
                    keys: keys.slice(of_row.clone()).pointer(),
                    values: values.slice(of_row).pointer(),
                };
                gpu.run(&[cuda::decode(qkv.dtype(), addresses, tokens.len(), s)])?;
            }
        }
    }
    Ok(())
}
