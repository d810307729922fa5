//! Bytes of device memory that a kernel or a product reads and writes, from the arguments of its
//! launch.
//!
//! For a kernel's large operands this counts what its threads request: every pass over a row
//! counts, whether or not the cache serves it. Operands that many blocks share (keys and values of
//! a head, rotation tables, gains) and those of a product count once. On a GPU, the counters of
//! `ncu` tell what reaches the memory.

use kindling_core::cuda::{Arg, Launch, Product};

/// Bytes read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub read: u64,
    pub written: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.read += more.read;
        self.written += more.written;
    }
}

/// Arguments of a launch by position.
struct Arguments<'a>(&'a Launch);

impl Arguments<'_> {
    /// Returns a size.
    fn size(&self, index: usize) -> u64 {
        match self.0.args[index] {
            Arg::I32(value) => u64::from(value.unsigned_abs()),
            Arg::I64(value) => value.unsigned_abs(),
            other => panic!("{}: argument {index} is {other:?}", self.0.kernel),
        }
    }

    /// Returns four sizes, starting with the first argument that is not a pointer.
    fn first_sizes(&self) -> [u64; 4] {
        let is_size = |arg: &Arg| !matches!(arg, Arg::Pointer(_));
        let first = self.0.args.iter().position(is_size).unwrap_or(0);
        [0, 1, 2, 3].map(|i| self.size(first + i))
    }

    fn pointer(&self, index: usize) -> u64 {
        match self.0.args[index] {
            Arg::Pointer(pointer) => pointer,
            other => panic!("{}: argument {index} is {other:?}", self.0.kernel),
        }
    }

    /// Returns `bytes` if an optional buffer is given or a flag is set, else 0.
    fn if_given(&self, index: usize, bytes: u64) -> u64 {
        let given = match self.0.args[index] {
            Arg::Pointer(pointer) => pointer != 0,
            _ => self.size(index) != 0,
        };
        if given { bytes } else { 0 }
    }
}

/// Returns the name of a kernel without its dtype and sizes.
pub fn family(kernel: &str) -> String {
    let is_variant =
        |part: &&str| matches!(*part, "f32" | "bf16") || part.chars().all(|c| c.is_ascii_digit());
    let parts: Vec<&str> = kernel.split('_').collect();
    // The dtypes of a cast are part of its name.
    if parts[0] == "cast" {
        return kernel.to_owned();
    }
    parts.into_iter().filter(|part| !is_variant(part)).collect::<Vec<_>>().join("_")
}

/// Returns the bytes of a product.
pub fn of_product(product: &Product) -> Traffic {
    let [m, k, n] = [product.m, product.k, product.n].map(|size| size as u64);
    let out = m * n * product.results.size() as u64;
    let operands = (m * k + k * n) * product.operands.size() as u64;
    Traffic { read: operands + if product.accumulate { out } else { 0 }, written: out }
}

/// Returns the bytes of a launch.
///
/// # Panics
/// Panics if the kernel is not in this table.
pub fn of_launch(launch: &Launch) -> Traffic {
    // Bytes of an element between two products.
    let e = if launch.kernel.contains("bf16") { 2 } else { 4 };
    let args = Arguments(launch);
    let rows = u64::from(launch.grid[0]);
    let (read, written) = match family(launch.kernel).as_str() {
        "embedding_forward" => {
            let (rows, width) = (args.size(3), args.size(4));
            (4 * rows * (width + 1), 4 * rows * width)
        }
        "embedding_backward" => {
            // The number of rows in the batch is the distance between two arrays of groups. A block
            // adds at most eight groups.
            let rows = 8 * rows;
            let (batch, width) = ((args.pointer(3) - args.pointer(2)) / 4, args.size(6));
            (4 * width * (batch + rows), 4 * width * rows)
        }
        "rms_norm_forward" => {
            let (rows, n) = (args.size(6), args.size(6) * args.size(7));
            (4 * n + args.if_given(4, e * n), e * n + args.if_given(1, 4 * n) + 4 * rows)
        }
        "rms_norm_backward" | "rms_norm_backward_unaligned" => {
            let (blocks, width) = (rows, args.size(9));
            let n = args.size(8) * width;
            let copies = args.if_given(1, e * n) + args.if_given(2, e * n);
            (
                (e + 4) * n + 4 * args.size(8) + args.if_given(10, 4 * n),
                4 * n + copies + 4 * blocks * width,
            )
        }
        "rms_norm_add_partial" | "linear_add_partial" => {
            (4 * args.size(3) * (args.size(2) + 1), 4 * args.size(3))
        }
        "rope_rotate" => (e * rows * args.size(4), e * rows * args.size(4)),
        "linear_add_bias" => (e * rows * args.size(2), e * rows * args.size(2)),
        "linear_sum_rows" => {
            let runs = u64::from(launch.grid[1]);
            (e * args.size(2) * args.size(3), 4 * runs * args.size(3))
        }
        "attention_forward" => {
            let [positions, heads, kv_heads, size] = args.first_sizes();
            let rows = u64::from(launch.grid[2]) * positions;
            (e * rows * (heads + 2 * kv_heads) * size, rows * heads * (e * size + 4))
        }
        "attention_delta" => {
            let [rows, _, heads, size] = args.first_sizes();
            (2 * e * rows * heads * size, 4 * rows * heads)
        }
        name @ ("attention_backward_kv" | "attention_backward_q") => {
            let [positions, heads, kv_heads, size] = args.first_sizes();
            let rows = u64::from(launch.grid[2]) * positions;
            let of = if name == "attention_backward_kv" { 2 * kv_heads } else { heads };
            (e * rows * 2 * (heads + kv_heads) * size + 8 * rows * heads, e * rows * of * size)
        }
        "attention_backward" => {
            let [positions, heads, kv_heads, size] = args.first_sizes();
            let rows = u64::from(launch.grid[2]) * positions;
            let (queries, keys) = (rows * heads * size, 2 * rows * kv_heads * size);
            // Blocks of keys add in turn to the f32 sums of the queries after them, on average half
            // of all queries; the last block writes dq.
            let sums = 4 * queries * (u64::from(launch.grid[0]) - 1) / 2;
            (e * (2 * queries + keys) + 8 * rows * heads + sums, e * (queries + keys) + sums)
        }
        "swiglu_forward" => (2 * e * rows * args.size(2), e * rows * args.size(2)),
        "swiglu_backward" => {
            let n = rows * args.size(4);
            (3 * e * n, 2 * e * n + args.if_given(1, e * n))
        }
        // A pass over the row for its lse, another for its gradient.
        "cross_entropy_forward" => (e * rows * args.size(4), 8 * rows),
        "cross_entropy_forward_backward" => {
            let n = rows * args.size(3);
            (2 * e * n, e * n + 4 * rows)
        }
        "cross_entropy_forward_backward_kept" => {
            let n = rows * args.size(3);
            (e * n, e * n + 4 * rows)
        }
        "cross_entropy_add_losses" => (4 * args.size(2), 8),
        "cast_bf16_to_f32" => (2 * args.size(2), 4 * args.size(2)),
        "cast_f32_to_bf16" => (4 * args.size(2), 2 * args.size(2)),
        "adamw_step" => {
            let n = args.size(5);
            (16 * n, 12 * n + args.if_given(1, 2 * n) + args.if_given(8, 4 * n))
        }
        "grad_norm_squares" => (4 * args.size(2), 8 * rows),
        "grad_norm_clip_factor" => (8 * args.size(2), 24),
        other => panic!("{other} is missing from the table of traffic"),
    };
    Traffic { read, written }
}
