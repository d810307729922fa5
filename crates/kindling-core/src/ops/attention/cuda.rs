//! CUDA implementation: launches of the kernels in `cuda.cu`.
//!
//! qkv, dqkv, out and dout have the device's dtype; lse and delta (b, nh, t) are f32. In bf16 the
//! products run on tensor cores, in f32 on CUDA cores.

use super::Shape;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::by_dtype;

/// Largest head size that has kernels.
pub const MAX_HEAD_SIZE: usize = 128;

/// A kernel's name and the sizes of its tiles, as compiled in `cuda.cu`.
#[derive(Clone, Copy)]
struct Kernel {
    name: &'static str,
    /// In bf16, a block keeps 64 times this many rows in shared memory, 16 per warp and unit. Not
    /// used in f32, where it keeps 32 rows.
    row_tiles: usize,
    /// Rows that stream past the block at a time.
    streamed_rows: usize,
}

/// The kernels of one head size.
struct Kernels {
    /// Largest head size that they serve.
    width: usize,
    forward: Kernel,
    backward_kv: Kernel,
    backward_q: Kernel,
}

/// A kernel that computes dq, dk and dv together, in bf16 only.
#[derive(Clone, Copy)]
struct JointKernel {
    name: &'static str,
    width: usize,
    warps: usize,
    /// Keys of a block.
    keys: usize,
    /// Queries that stream past the block at a time.
    queries: usize,
}

impl JointKernel {
    fn shared_bytes(&self) -> u32 {
        let row = self.width + 8;
        let elements = (2 * self.keys + 4 * self.queries) * row + self.keys * (self.queries + 8);
        (2 * elements + 4 * 4 * self.queries) as u32
    }

    /// Returns the number of tiles of dq that blocks add to in turn.
    fn tiles(&self, s: Shape) -> usize {
        s.batch * s.num_heads * s.positions.div_ceil(self.queries)
    }
}

macro_rules! joint_kernels {
    ($($width:literal: $warps:literal, $m:literal, $queries:literal;)*) => {
        [$(JointKernel {
            name: concat!("attention_backward_bf16_", $width),
            width: $width,
            warps: $warps,
            keys: 16 * $m * $warps,
            queries: $queries,
        }),*]
    };
}

const JOINT_KERNELS: [JointKernel; 4] = joint_kernels! {
    32: 4, 2, 64;
    64: 4, 2, 32;
    96: 4, 1, 32;
    128: 4, 1, 32;
};

/// Returns the kernel that computes dq, dk and dv together, or `None` if there is none or Hopper's
/// kernels serve these sizes. `hopper`: as for `hopper_kernels`.
fn joint_kernel(dtype: Dtype, s: Shape, hopper: bool) -> Option<&'static JointKernel> {
    if dtype != Dtype::Bf16 || hopper_kernels(dtype, s, hopper).is_some() {
        return None;
    }
    JOINT_KERNELS.iter().find(|k| k.width >= s.head_size)
}

macro_rules! kernels {
    ($dtype:literal, $($width:literal: $forward:expr, $kv:expr, $q:expr;)*) => {
        [$(Kernels {
            width: $width,
            forward: kernel(concat!("attention_forward_", $dtype, "_", $width), $forward),
            backward_kv: kernel(concat!("attention_backward_kv_", $dtype, "_", $width), $kv),
            backward_q: kernel(concat!("attention_backward_q_", $dtype, "_", $width), $q),
        }),*]
    };
}

const fn kernel(name: &'static str, (row_tiles, streamed_rows): (usize, usize)) -> Kernel {
    Kernel { name, row_tiles, streamed_rows }
}

const F32_KERNELS: [Kernels; 4] = kernels! { "f32",
    32: (0, 32), (0, 32), (0, 32);
    64: (0, 32), (0, 32), (0, 32);
    96: (0, 32), (0, 32), (0, 32);
    128: (0, 32), (0, 32), (0, 32);
};
const BF16_KERNELS: [Kernels; 4] = kernels! { "bf16",
    32: (2, 64), (2, 64), (2, 64);
    64: (2, 64), (1, 64), (2, 64);
    96: (1, 64), (1, 64), (1, 64);
    128: (1, 64), (1, 32), (1, 64);
};

/// Returns the kernels for a head size.
///
/// # Panics
/// Panics if the head size is above `MAX_HEAD_SIZE`, which the op has checked.
fn kernels(dtype: Dtype, head_size: usize) -> &'static Kernels {
    let all: &'static [Kernels] = match dtype {
        Dtype::F32 => &F32_KERNELS,
        Dtype::Bf16 => &BF16_KERNELS,
    };
    all.iter().find(|k| k.width >= head_size).expect("a head size of at most 128")
}

/// Returns the number of rows in a block, and its shared memory in bytes.
///
/// In bf16, the memory holds `kept_tiles` tiles of the block's rows, four tiles of streamed rows,
/// and `floats_per_row` f32 for each streamed row.
fn block_size(
    dtype: Dtype,
    width: usize,
    kernel: Kernel,
    kept_tiles: usize,
    floats_per_row: usize,
) -> (usize, u32) {
    match dtype {
        Dtype::F32 => (32, (4 * (4 * 32 * (width + 1) + 2 * 32 * 33 + 2 * 32)) as u32),
        Dtype::Bf16 => {
            let (rows, streamed) = (64 * kernel.row_tiles, kernel.streamed_rows);
            let elements = (kept_tiles * rows + 4 * streamed) * (width + 8);
            (rows, (2 * elements + 4 * floats_per_row * streamed) as u32)
        }
    }
}

/// Returns whether the rows of every head start at a multiple of 16 bytes.
fn is_aligned(dtype: Dtype, addresses: &[u64], s: Shape) -> bool {
    (s.head_size * dtype.size()).is_multiple_of(16) && addresses.iter().all(|p| p % 16 == 0)
}

fn size_args(s: Shape, aligned: bool) -> [Arg; 5] {
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

/// Returns the lanes per head of a row in the kernel of delta, as in `cuda.cu`.
fn delta_lanes(head_size: usize) -> usize {
    match head_size {
        0..=32 => 4,
        33..=64 => 8,
        _ => 16,
    }
}

/// Device addresses of the buffers of `forward`.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    pub out: u64,
    pub lse: u64,
    pub qkv: u64,
}

/// A kernel of `hopper_*.cuh`. A block has 64 rows for each of its warpgroups. Its shared memory is
/// a multiple of 1024 bytes, since the emulator puts the end of that memory at the end of a page,
/// and tiles must be aligned.
#[derive(Clone, Copy)]
struct HopperKernel {
    name: &'static str,
    rows: usize,
    shared_bytes: u32,
}

/// The kernels for Hopper of one head size.
struct HopperKernels {
    head_size: usize,
    forward: HopperKernel,
    backward_q: HopperKernel,
    backward_kv: HopperKernel,
}

const fn hopper(name: &'static str, rows: usize, shared_bytes: u32) -> HopperKernel {
    HopperKernel { name, rows, shared_bytes }
}

/// Bytes of a tile: 64 rows of a head of 64, or half the columns of a head of 128.
const TILE: u32 = 64 * 128;

/// The kernels for Hopper. Shared memory holds tiles; for dk and dv also two stages of lse and
/// delta.
const HOPPER_KERNELS: [HopperKernels; 2] = [
    HopperKernels {
        head_size: 64,
        forward: hopper("attention_forward_hopper_64", 128, 12 * TILE),
        backward_q: hopper("attention_backward_q_hopper_64", 64, 7 * TILE),
        backward_kv: hopper("attention_backward_kv_hopper_64", 64, 7 * TILE + 2048),
    },
    HopperKernels {
        head_size: 128,
        forward: hopper("attention_forward_hopper_128", 192, 26 * TILE),
        backward_q: hopper("attention_backward_q_hopper_128", 192, 22 * TILE),
        backward_kv: hopper("attention_backward_kv_hopper_128", 128, 18 * TILE + 2048),
    },
];

/// Returns the kernels for Hopper that serve these sizes. `hopper`: whether the device has the
/// instructions of `kernels/warpgroup.cuh`.
fn hopper_kernels(dtype: Dtype, s: Shape, hopper: bool) -> Option<&'static HopperKernels> {
    let all: &'static [HopperKernels] = &HOPPER_KERNELS;
    all.iter().find(|k| hopper && dtype == Dtype::Bf16 && k.head_size == s.head_size)
}

/// Builds a launch with one block per `kernel.rows` positions of each of `heads` heads, with 128
/// threads per 64 rows.
fn hopper_launch(kernel: HopperKernel, heads: usize, addresses: &[u64], s: Shape) -> Launch {
    let HopperKernel { name, rows, shared_bytes } = kernel;
    let mut args = pointers(addresses);
    args.extend([s.positions, s.num_heads, s.num_kv_heads].map(Arg::from));
    let grid = [s.positions.div_ceil(rows) as u32, heads as u32, s.batch as u32];
    Launch { kernel: name, grid, block: 2 * rows as u32, shared_bytes, args }
}

/// Builds the launch that computes out and lse of every query. `hopper`: as for `hopper_kernels`.
pub fn forward(dtype: Dtype, addresses: Forward, s: Shape, hopper: bool) -> Launch {
    let Forward { out, lse, qkv } = addresses;
    let aligned = is_aligned(dtype, &[out, qkv], s);
    if let Some(kernels) = hopper_kernels(dtype, s, hopper).filter(|_| aligned) {
        return hopper_launch(kernels.forward, s.num_heads, &[out, lse, qkv], s);
    }
    let kernels = kernels(dtype, s.head_size);
    let (rows, shared_bytes) = block_size(dtype, kernels.width, kernels.forward, 1, 0);
    let mut args = pointers(&[out, lse, qkv]);
    args.extend(size_args(s, aligned));
    let grid = [s.positions.div_ceil(rows) as u32, s.num_heads as u32, s.batch as u32];
    Launch { kernel: kernels.forward.name, grid, block: 128, shared_bytes, args }
}

/// Device addresses of the buffers of `backward`.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    pub dqkv: u64,
    /// Scratch of f32, the size of lse.
    pub delta: u64,
    /// Scratch of `dq_len` f32.
    pub dq: u64,
    /// `turns_len` i32, which are zero before the launches and again after them.
    pub turns: u64,
    pub dout: u64,
    pub qkv: u64,
    pub out: u64,
    pub lse: u64,
    /// Tables of the rotation of queries and keys, f32, (positions, `head_size`). 0 if not rotated.
    pub cos: u64,
    pub sin: u64,
}

/// Returns the number of f32 elements in `Backward::dq`. `hopper`: as for `hopper_kernels`.
pub fn dq_len(dtype: Dtype, s: Shape, hopper: bool) -> usize {
    joint_kernel(dtype, s, hopper).map_or(0, |k| k.tiles(s) * k.queries * k.width)
}

/// Returns the number of elements in `Backward::turns`. `hopper`: as for `hopper_kernels`.
pub fn turns_len(dtype: Dtype, s: Shape, hopper: bool) -> usize {
    joint_kernel(dtype, s, hopper).map_or(0, |k| k.tiles(s))
}

/// Builds the launches that compute dqkv, in order. `hopper`: as for `hopper_kernels`.
pub fn backward(dtype: Dtype, addresses: Backward, s: Shape, hopper: bool) -> Vec<Launch> {
    let Backward { dqkv, dout, qkv, out, .. } = addresses;
    let aligned = is_aligned(dtype, &[dqkv, dout, qkv, out], s);
    if let Some(kernels) = hopper_kernels(dtype, s, hopper).filter(|_| aligned) {
        return hopper_backward(kernels, addresses, s);
    }
    match joint_kernel(dtype, s, hopper) {
        Some(kernel) => vec![deltas(dtype, addresses, s), joint(kernel, addresses, s)],
        None => backward_in_two(dtype, addresses, s),
    }
}

/// Builds the launches for Hopper: dq and delta, then dk and dv.
fn hopper_backward(kernels: &HopperKernels, addresses: Backward, s: Shape) -> Vec<Launch> {
    let Backward { dqkv, delta, dout, qkv, out, lse, cos, sin, .. } = addresses;
    let q = [dqkv, delta, dout, qkv, out, lse, cos, sin];
    let kv = [dqkv, delta, dout, qkv, lse, cos, sin];
    vec![
        hopper_launch(kernels.backward_q, s.num_heads, &q, s),
        hopper_launch(kernels.backward_kv, s.num_kv_heads, &kv, s),
    ]
}

fn joint(kernel: &JointKernel, addresses: Backward, s: Shape) -> Launch {
    let Backward { dqkv, delta, dq, turns, dout, qkv, lse, cos, sin, .. } = addresses;
    let mut args = pointers(&[dqkv, dq, turns, dout, qkv, lse, delta, cos, sin]);
    args.extend(size_args(s, is_aligned(Dtype::Bf16, &[dqkv, dout, qkv], s)));
    let blocks = s.positions.div_ceil(kernel.keys);
    Launch {
        kernel: kernel.name,
        grid: [blocks as u32, s.num_kv_heads as u32, s.batch as u32],
        block: 32 * kernel.warps as u32,
        shared_bytes: kernel.shared_bytes(),
        args,
    }
}

fn deltas(dtype: Dtype, addresses: Backward, s: Shape) -> Launch {
    let all_rows = s.batch * s.positions;
    let mut args = pointers(&[addresses.delta, addresses.dout, addresses.out]);
    args.extend([all_rows, s.positions, s.num_heads, s.head_size].map(Arg::from));
    Launch {
        kernel: by_dtype(dtype, "attention_delta_f32", "attention_delta_bf16"),
        grid: [(all_rows * s.num_heads * delta_lanes(s.head_size)).div_ceil(256) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args,
    }
}

/// Builds the launches that compute dqkv without the `dq` and `turns` buffers: delta, then dk and
/// dv, then dq.
pub fn backward_in_two(dtype: Dtype, addresses: Backward, s: Shape) -> Vec<Launch> {
    let Backward { dqkv, delta, dout, qkv, lse, cos, sin, .. } = addresses;
    let kernels = kernels(dtype, s.head_size);
    let pass = |kernel: Kernel, heads: usize| {
        let (rows, shared_bytes) = block_size(dtype, kernels.width, kernel, 2, 4);
        let mut args = pointers(&[dqkv, dout, qkv, lse, delta, cos, sin]);
        args.extend(size_args(s, is_aligned(dtype, &[dqkv, dout, qkv], s)));
        let grid = [s.positions.div_ceil(rows) as u32, heads as u32, s.batch as u32];
        Launch { kernel: kernel.name, grid, block: 128, shared_bytes, args }
    };
    vec![
        deltas(dtype, addresses, s),
        pass(kernels.backward_kv, s.num_kv_heads),
        pass(kernels.backward_q, s.num_heads),
    ]
}

/// Device addresses of the buffers of `decode`.
#[derive(Debug, Clone, Copy)]
pub struct Decode {
    pub out: u64,
    pub q: u64,
    pub keys: u64,
    pub values: u64,
}

/// Builds the launch of one query per head against `length` cached keys and values.
pub fn decode(dtype: Dtype, addresses: Decode, length: usize, s: Shape) -> Launch {
    let Decode { out, q, keys, values } = addresses;
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
