//! Column-major products as cuBLAS documents them, and the cuRAND generator that is created but
//! never used.

use std::ffi::c_void;

use kindling_core::cuda::Driver;
use kindling_kernel_emulator::{Bf16, Element};

use crate::state::{BLAS, STREAM, current, device, queue};

/// A `cublasStatus_t` or `curandStatus_t`.
type Status = i32;
const SUCCESS: Status = 0;
const NOT_INITIALIZED: Status = 1;
const INVALID_VALUE: Status = 7;
const NOT_SUPPORTED: Status = 15;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut usize) -> Status {
    if current() == 0 {
        return NOT_INITIALIZED;
    }
    // SAFETY: here and below, the caller provides room for the handle.
    unsafe { handle.write(BLAS) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasDestroy_v2(handle: usize) -> Status {
    known(handle)
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetStream_v2(handle: usize, stream: usize) -> Status {
    if stream == STREAM { known(handle) } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetWorkspace_v2(handle: usize, memory: u64, _bytes: usize) -> Status {
    if memory.is_multiple_of(256) { known(handle) } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetMathMode(handle: usize, _mode: u32) -> Status {
    known(handle)
}

fn known(handle: usize) -> Status {
    if handle == BLAS { SUCCESS } else { NOT_INITIALIZED }
}

/// Element type of a matrix, from its `cudaDataType`.
#[derive(Clone, Copy)]
enum Elements {
    F32,
    Bf16,
}

impl Elements {
    fn of(kind: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::F32),
            14 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn read(self, pointer: u64, len: usize) -> Result<Vec<f32>, String> {
        let mut bytes = vec![0; len * self.size()];
        device().download(&mut bytes, pointer).map_err(|e| e.to_string())?;
        Ok(match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Self::Bf16 => bytes
                .chunks_exact(2)
                .map(|b| Bf16(u16::from_ne_bytes([b[0], b[1]])).to_f32())
                .collect(),
        })
    }

    fn write(self, pointer: u64, values: &[f32]) -> Result<(), String> {
        let bytes: Vec<u8> = match self {
            Self::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| Bf16::from_f32(*v).0.to_ne_bytes()).collect(),
        };
        device().upload(pointer, &bytes).map_err(|e| e.to_string())
    }
}

/// An operand (rows, columns), stored as it is or, if `transposed`, as its transpose.
#[derive(Clone, Copy)]
struct Factor {
    pointer: u64,
    elements: Elements,
    transposed: bool,
    rows: usize,
    columns: usize,
    leading: usize,
}

impl Factor {
    /// Returns the elements in row-major order.
    fn values(self, round: impl Fn(f32) -> f32) -> Result<Vec<f32>, String> {
        let (height, width) =
            if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        let lies = self.elements.read(self.pointer, spanned(height, width, self.leading))?;
        let at = |row: usize, column: usize| {
            if self.transposed { column + row * self.leading } else { row + column * self.leading }
        };
        Ok((0..self.rows * self.columns)
            .map(|i| round(lies[at(i / self.columns, i % self.columns)]))
            .collect())
    }

    fn fits(self) -> bool {
        self.leading >= if self.transposed { self.columns } else { self.rows }
    }
}

/// Number of elements from the first to the last of a matrix.
fn spanned(height: usize, width: usize, leading: usize) -> usize {
    if height == 0 || width == 0 { 0 } else { leading * (width - 1) + height }
}

/// Rounds to `TensorFloat-32`, which keeps 10 of f32's 23 mantissa bits.
fn tf32(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0x1000) & !0x1FFF)
}

/// C = alpha op(A) op(B) + beta C; op(A) (m, k), op(B) (k, n), C (m, n).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmEx(
    handle: usize,
    transposed_a: u32,
    transposed_b: u32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: u64,
    kind_a: u32,
    leading_a: i32,
    b: u64,
    kind_b: u32,
    leading_b: i32,
    beta: *const c_void,
    c: u64,
    kind_c: u32,
    leading_c: i32,
    compute: u32,
    _algorithm: i32,
) -> Status {
    const COMPUTE_32F: u32 = 68;
    const COMPUTE_32F_FAST_TF32: u32 = 77;
    if handle != BLAS {
        return NOT_INITIALIZED;
    }
    let (Some(of_a), Some(of_b), Some(of_c)) =
        (Elements::of(kind_a), Elements::of(kind_b), Elements::of(kind_c))
    else {
        return NOT_SUPPORTED;
    };
    // The manual's table: operands of one type, and no bf16 result from f32 operands.
    let supported = kind_a == kind_b && !(kind_a == 0 && kind_c == 14);
    if !supported || !matches!(compute, COMPUTE_32F | COMPUTE_32F_FAST_TF32) {
        return NOT_SUPPORTED;
    }
    let size = |value: i32| usize::try_from(value).unwrap_or(0);
    let [m, n, k, leading] = [m, n, k, leading_c].map(size);
    let a = Factor {
        pointer: a,
        elements: of_a,
        transposed: transposed_a == 1,
        rows: m,
        columns: k,
        leading: size(leading_a),
    };
    let b = Factor {
        pointer: b,
        elements: of_b,
        transposed: transposed_b == 1,
        rows: k,
        columns: n,
        leading: size(leading_b),
    };
    if !a.fits() || !b.fits() || leading < m {
        return INVALID_VALUE;
    }
    // SAFETY: f32 numbers in host memory, as the compute type requires.
    let (alpha, beta) = unsafe { (alpha.cast::<f32>().read(), beta.cast::<f32>().read()) };
    let round = move |value| if compute == COMPUTE_32F_FAST_TF32 { tf32(value) } else { value };
    queue(STREAM, move || {
        let (a, b) = (a.values(round)?, b.values(round)?);
        let mut result = of_c.read(c, spanned(m, n, leading))?;
        for (column, row) in (0..n).flat_map(|column| (0..m).map(move |row| (column, row))) {
            let sum: f64 = (0..k)
                .map(|depth| f64::from(a[row * k + depth]) * f64::from(b[depth * n + column]))
                .sum();
            let place = &mut result[row + column * leading];
            // With beta = 0, C is not read and may hold anything.
            let before = if beta == 0.0 { 0.0 } else { beta * *place };
            *place = alpha * sum as f32 + before;
        }
        of_c.write(c, &result)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandCreateGenerator(generator: *mut usize, _kind: u32) -> Status {
    // SAFETY: as above.
    unsafe { generator.write(1) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn curandDestroyGenerator(_generator: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn curandSetStream(_generator: usize, _stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn curandSetPseudoRandomGeneratorSeed(_generator: usize, _seed: u64) -> Status {
    SUCCESS
}
