//! CUDA half: launches of `cuda.cu`. qkv, dqkv, out, dout are of the dtype; lse and delta (b, nh, t) are f32. In bf16 the
//! products run on the tensor cores, in f32 they do not.

use super::Shape;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::by_dtype;

/// Largest head there is a kernel for.
pub const MOST_HEAD_SIZE: usize = 128;

/// What the kernels of a head size (rounded up) are made with, as in `cuda.cu`.
struct Kernels {
    /// Head size, rounded up.
    width: usize,
    /// Forward, keys' and queries' backward: name, 16s of rows a warp, passing rows at a time (f32 has 32 of both).
    forward: (&'static str, usize, usize),
    backward_kv: (&'static str, usize, usize),
    backward_q: (&'static str, usize, usize),
}

macro_rules! kernels {
    ($dtype:literal, $($width:literal: $forward:expr, $kv:expr, $q:expr;)*) => {
        [$(Kernels {
            width: $width,
            forward: (concat!("attention_forward_", $dtype, "_", $width), $forward.0, $forward.1),
            backward_kv: (concat!("attention_backward_kv_", $dtype, "_", $width), $kv.0, $kv.1),
            backward_q: (concat!("attention_backward_q_", $dtype, "_", $width), $q.0, $q.1),
        }),*]
    };
}

const PLAIN: [Kernels; 4] = kernels! { "f32",
    32: (0, 32), (0, 32), (0, 32);
    64: (0, 32), (0, 32), (0, 32);
    96: (0, 32), (0, 32), (0, 32);
    128: (0, 32), (0, 32), (0, 32);
};
const TENSOR: [Kernels; 4] = kernels! { "bf16",
    32: (2, 64), (2, 64), (2, 64);
    64: (2, 64), (1, 64), (2, 64);
    96: (1, 64), (1, 64), (1, 64);
    128: (1, 64), (1, 32), (1, 64);
};

/// The kernels of a head size.
///
/// # Panics
/// For a head size above `MOST_HEAD_SIZE` (the op checks it).
fn kernels(dtype: Dtype, head_size: usize) -> &'static Kernels {
    let all: &'static [Kernels] = match dtype {
        Dtype::F32 => &PLAIN,
        Dtype::Bf16 => &TENSOR,
    };
    all.iter().find(|k| k.width >= head_size).expect("a head size of at most 128")
}

/// Rows of a block, and shared memory in bytes: `staying` tiles of those rows, four of `passing` ones, `row_floats` f32 a
/// passing row.
fn sizes(
    dtype: Dtype,
    width: usize,
    warp_rows: usize,
    passing: usize,
    staying: usize,
    row_floats: usize,
) -> (usize, u32) {
    match dtype {
        Dtype::F32 => (32, (4 * (4 * 32 * (width + 1) + 2 * 32 * 33 + 2 * 32)) as u32),
        Dtype::Bf16 => {
            let rows = 64 * warp_rows;
            let elements = (staying * rows + 4 * passing) * (width + 8);
            (rows, (2 * elements + 4 * row_floats * passing) as u32)
        }
    }
}

/// Whether the rows of every head start at a multiple of 16 bytes.
fn is_aligned(dtype: Dtype, pointers: &[u64], s: Shape) -> bool {
    (s.head_size * dtype.size()).is_multiple_of(16) && pointers.iter().all(|p| p % 16 == 0)
}

fn sizes_args(s: Shape, aligned: bool) -> [Arg; 5] {
    [
        s.positions.into(),
        s.num_heads.into(),
        s.num_kv_heads.into(),
        s.head_size.into(),
        Arg::I32(i32::from(aligned)),
    ]
}

fn pointers(all: &[u64]) -> Vec<Arg> {
    all.iter().map(|p| Arg::Pointer(*p)).collect()
}

/// Lanes that take a head of a row of `delta`, as in `cuda.cu`.
fn delta_lanes(head_size: usize) -> usize {
    match head_size {
        0..=32 => 4,
        33..=64 => 8,
        _ => 16,
    }
}

/// out and lse of every query.
pub fn forward(dtype: Dtype, out: u64, lse: u64, qkv: u64, s: Shape) -> Launch {
    let kernels = kernels(dtype, s.head_size);
    let (kernel, warp_rows, passing) = kernels.forward;
    let (rows, shared_bytes) = sizes(dtype, kernels.width, warp_rows, passing, 1, 0);
    let mut args = pointers(&[out, lse, qkv]);
    args.extend(sizes_args(s, is_aligned(dtype, &[out, qkv], s)));
    let grid = [s.positions.div_ceil(rows) as u32, s.num_heads as u32, s.batch as u32];
    Launch { kernel, grid, block: 128, shared_bytes, args }
}

/// dqkv, by way of `delta`, f32 scratch like lse. Three launches, in order.
pub fn backward(
    dtype: Dtype,
    dqkv: u64,
    delta: u64,
    dout: u64,
    qkv: u64,
    out: u64,
    lse: u64,
    s: Shape,
) -> [Launch; 3] {
    let all_rows = s.batch * s.positions;
    let mut args = pointers(&[delta, dout, out]);
    args.extend([all_rows, s.positions, s.num_heads, s.head_size].map(Arg::from));
    let deltas = Launch {
        kernel: by_dtype(dtype, "attention_delta_f32", "attention_delta_bf16"),
        grid: [(all_rows * s.num_heads * delta_lanes(s.head_size)).div_ceil(256) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args,
    };
    let kernels = kernels(dtype, s.head_size);
    let pass = |(kernel, warp_rows, passing): (&'static str, usize, usize), heads: usize| {
        let (rows, shared_bytes) = sizes(dtype, kernels.width, warp_rows, passing, 2, 4);
        let mut args = pointers(&[dqkv, dout, qkv, lse, delta]);
        args.extend(sizes_args(s, is_aligned(dtype, &[dqkv, dout, qkv], s)));
        let grid = [s.positions.div_ceil(rows) as u32, heads as u32, s.batch as u32];
        Launch { kernel, grid, block: 128, shared_bytes, args }
    };
    [deltas, pass(kernels.backward_kv, s.num_kv_heads), pass(kernels.backward_q, s.num_heads)]
}

/// One query against `length` cached keys and values.
pub fn decode(
    dtype: Dtype,
    out: u64,
    q: u64,
    keys: u64,
    values: u64,
    length: usize,
    s: Shape,
) -> Launch {
    let mut args = pointers(&[out, q, keys, values]);
    args.extend([length, s.num_heads, s.num_kv_heads, s.head_size].map(Arg::from));
    Launch {
        kernel: by_dtype(dtype, "attention_decode_f32", "attention_decode_bf16"),
        grid: [s.num_heads as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args,
    }
}
