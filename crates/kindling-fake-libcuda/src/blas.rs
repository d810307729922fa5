//! Column-major products as cuBLASLt documents them.

use std::ffi::c_void;

use crate::matrix::{Elements, Factor, spanned, tf32};
use crate::state::{BLAS, current, pass_time, queue, setting};

/// A `cublasStatus_t`.
type Status = i32;
const SUCCESS: Status = 0;
const NOT_INITIALIZED: Status = 1;
const INVALID_VALUE: Status = 7;
const NOT_SUPPORTED: Status = 15;

/// First words of the algorithms that can run. One adds products from the first to the last, the
/// other from the last to the first.
const ALGORITHMS: [u64; 2] = [0xA160, 0xA161];
const COMPUTE_32F: u32 = 68;
const COMPUTE_32F_FAST_TF32: u32 = 77;

/// A `cublasLtMatmulDesc_t`.
pub struct Description {
    compute: u32,
    transposed: [bool; 2],
}

/// A `cublasLtMatrixLayout_t`.
pub struct Layout {
    kind: u32,
    rows: usize,
    columns: usize,
    leading: usize,
}

/// A `cublasLtMatmulPreference_t`.
pub struct Preference {
    workspace_bytes: usize,
    /// Minimum alignments of a, b, c and d, in bytes.
    alignments: [u32; 4],
}

/// A `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
pub struct Found {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [i32; 4],
}

impl Found {
    fn of(algorithm: [u64; 8], state: Status) -> Self {
        Self { algorithm, workspace_bytes: 0, state, waves: 1.0, reserved: [0; 4] }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtCreate(handle: *mut usize) -> Status {
    if current() == 0 {
        return NOT_INITIALIZED;
    }
    // SAFETY: here and below, the caller provides room for the result.
    unsafe { handle.write(BLAS) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtDestroy(handle: usize) -> Status {
    if handle == BLAS { SUCCESS } else { NOT_INITIALIZED }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescCreate(
    made: *mut *mut Description,
    compute: u32,
    scale: u32,
) -> Status {
    if !matches!(compute, COMPUTE_32F | COMPUTE_32F_FAST_TF32) || scale != 0 {
        return NOT_SUPPORTED;
    }
    // SAFETY: as above.
    unsafe { made.write(Box::into_raw(Box::new(Description { compute, transposed: [false; 2] }))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    description: *mut Description,
    attribute: u32,
    value: *const c_void,
    bytes: usize,
) -> Status {
    const TRANSA: u32 = 3;
    const TRANSB: u32 = 4;
    if !matches!(attribute, TRANSA | TRANSB) || bytes != 4 {
        return INVALID_VALUE;
    }
    // SAFETY: made by `cublasLtMatmulDescCreate`; `bytes` at `value`.
    unsafe {
        (*description).transposed[(attribute - TRANSA) as usize] = value.cast::<u32>().read() == 1;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescDestroy(description: *mut Description) -> Status {
    // SAFETY: made by `cublasLtMatmulDescCreate`, destroyed once.
    drop(unsafe { Box::from_raw(description) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    made: *mut *mut Layout,
    kind: u32,
    rows: u64,
    columns: u64,
    leading: i64,
) -> Status {
    let [rows, columns] = [rows, columns].map(|size| size as usize);
    let leading = usize::try_from(leading).unwrap_or(0);
    if leading < rows || rows == 0 || columns == 0 {
        return INVALID_VALUE;
    }
    // SAFETY: as above.
    unsafe { made.write(Box::into_raw(Box::new(Layout { kind, rows, columns, leading }))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutDestroy(layout: *mut Layout) -> Status {
    // SAFETY: made by `cublasLtMatrixLayoutCreate`, destroyed once.
    drop(unsafe { Box::from_raw(layout) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceCreate(made: *mut *mut Preference) -> Status {
    let preference = Preference { workspace_bytes: 0, alignments: [256; 4] };
    // SAFETY: as above.
    unsafe { made.write(Box::into_raw(Box::new(preference))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: *mut Preference,
    attribute: u32,
    value: *const c_void,
    bytes: usize,
) -> Status {
    const MAX_WORKSPACE_BYTES: u32 = 1;
    const REDUCTION_SCHEME_MASK: u32 = 3;
    const MIN_ALIGNMENT_A_BYTES: u32 = 5;
    // SAFETY: made by `cublasLtMatmulPreferenceCreate`; `bytes` at `value`.
    unsafe {
        match (attribute, bytes) {
            (MAX_WORKSPACE_BYTES, 8) => {
                (*preference).workspace_bytes = value.cast::<usize>().read();
            }
            (REDUCTION_SCHEME_MASK, 4) => {}
            (MIN_ALIGNMENT_A_BYTES..=8, 4) => {
                let place = (attribute - MIN_ALIGNMENT_A_BYTES) as usize;
                (*preference).alignments[place] = value.cast::<u32>().read();
            }
            _ => return INVALID_VALUE,
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceDestroy(preference: *mut Preference) -> Status {
    // SAFETY: made by `cublasLtMatmulPreferenceCreate`, destroyed once.
    drop(unsafe { Box::from_raw(preference) });
    SUCCESS
}

/// Returns an algorithm that cannot run, and two that can. Their second word holds the alignments
/// that they rely on, so that `cublasLtMatmul` can check them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: usize,
    description: *const Description,
    a: *const Layout,
    b: *const Layout,
    c: *const Layout,
    d: *const Layout,
    preference: *const Preference,
    most: i32,
    found: *mut Found,
    count: *mut i32,
) -> Status {
    if handle != BLAS || most < 3 {
        return INVALID_VALUE;
    }
    // SAFETY: made by the functions above; room for `most` results.
    unsafe {
        if let Err(status) = sizes(&*description, [&*a, &*b, &*c, &*d]) {
            return status;
        }
        let alignments = (*preference).alignments;
        let relied = alignments.iter().rev().fold(0, |all, bytes| (all << 16) | u64::from(*bytes));
        let words = [(0, NOT_SUPPORTED), (ALGORITHMS[0], SUCCESS), (ALGORITHMS[1], SUCCESS)];
        for (place, (word, state)) in words.into_iter().enumerate() {
            found.add(place).write(Found::of([word, relied, 0, 0, 0, 0, 0, 0], state));
        }
        count.write(3);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoCheck(
    handle: usize,
    description: *const Description,
    a: *const Layout,
    b: *const Layout,
    c: *const Layout,
    d: *const Layout,
    algorithm: *const [u64; 8],
    result: *mut Found,
) -> Status {
    // SAFETY: made by the functions above; room for the result.
    unsafe {
        let fits = sizes(&*description, [&*a, &*b, &*c, &*d]).is_ok();
        if handle != BLAS || !fits || !ALGORITHMS.contains(&(*algorithm)[0]) {
            return INVALID_VALUE;
        }
        result.write(Found::of(*algorithm, SUCCESS));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    130_000
}

/// Returns m, n and k of a product whose layouts obey the manual's rules.
fn sizes(description: &Description, layouts: [&Layout; 4]) -> Result<[usize; 3], Status> {
    let [a, b, c, d] = layouts;
    let turned = |layout: &Layout, transposed| {
        if transposed { (layout.columns, layout.rows) } else { (layout.rows, layout.columns) }
    };
    let (m, k) = turned(a, description.transposed[0]);
    let (of_b, n) = turned(b, description.transposed[1]);
    if of_b != k || (c.rows, c.columns) != (m, n) || (d.rows, d.columns) != (m, n) {
        return Err(INVALID_VALUE);
    }
    // Operands of one type, and no bf16 result from f32 operands.
    let supported = a.kind == b.kind && c.kind == d.kind && !(a.kind == 0 && d.kind == 14);
    if supported { Ok([m, n, k]) } else { Err(NOT_SUPPORTED) }
}

/// Computes D = alpha op(A) op(B) + beta C; op(A) (m, k), op(B) (k, n), C and D (m, n).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmul(
    handle: usize,
    description: *const Description,
    alpha: *const c_void,
    a: u64,
    layout_a: *const Layout,
    b: u64,
    layout_b: *const Layout,
    beta: *const c_void,
    c: u64,
    layout_c: *const Layout,
    d: u64,
    layout_d: *const Layout,
    algorithm: *const [u64; 8],
    workspace: u64,
    workspace_bytes: usize,
    stream: usize,
) -> Status {
    if handle != BLAS {
        return NOT_INITIALIZED;
    }
    // SAFETY: made by the functions above.
    let (description, layouts, algorithm) =
        unsafe { (&*description, [&*layout_a, &*layout_b, &*layout_c, &*layout_d], &*algorithm) };
    let [m, n, k] = match sizes(description, layouts) {
        Ok(sizes) => sizes,
        Err(status) => return status,
    };
    let relied = (0..4).map(|place| algorithm[1] >> (16 * place) & 0xFFFF);
    let aligned = [a, b, c, d].into_iter().zip(relied).all(|(at, bytes)| at.is_multiple_of(bytes));
    let workspace_fits = workspace.is_multiple_of(256) && (workspace_bytes == 0 || workspace != 0);
    if !ALGORITHMS.contains(&algorithm[0]) || !aligned || !workspace_fits {
        return INVALID_VALUE;
    }
    let [of_a, of_b, of_c, of_d] = layouts.map(|layout| Elements::of(layout.kind));
    let (Some(of_a), Some(of_b), Some(of_c), Some(of_d)) = (of_a, of_b, of_c, of_d) else {
        return NOT_SUPPORTED;
    };
    let transposed = description.transposed;
    let factor = |pointer, elements, transposed, rows, columns, leading| Factor {
        pointer,
        elements,
        transposed,
        rows,
        columns,
        leading,
    };
    let a = factor(a, of_a, transposed[0], m, k, layouts[0].leading);
    let b = factor(b, of_b, transposed[1], k, n, layouts[1].leading);
    let [leading_c, leading_d] = [layouts[2].leading, layouts[3].leading];
    // SAFETY: f32 numbers in host memory, as the scale type requires.
    let (alpha, beta) = unsafe { (alpha.cast::<f32>().read(), beta.cast::<f32>().read()) };
    let compute = description.compute;
    let backwards = algorithm[0] == ALGORITHMS[1];
    // The algorithm that EMULATED_CUDA_FASTEST names takes half the time of the other.
    pass_time(if u64::from(backwards) == setting("FASTEST", 0) { 1 } else { 2 });
    let round = move |value| if compute == COMPUTE_32F_FAST_TF32 { tf32(value) } else { value };
    let answer = queue(stream, move || {
        let (a, b) = (a.values(round)?, b.values(round)?);
        let before = of_c.read(c, spanned(m, n, leading_c))?;
        // Includes what lies between the columns of d, to be written back unchanged.
        let mut result = of_d.read(d, spanned(m, n, leading_d))?;
        for (column, row) in (0..n).flat_map(|column| (0..m).map(move |row| (column, row))) {
            let term = |depth: usize| a[row * k + depth] * b[depth * n + column];
            let sum: f32 =
                if backwards { (0..k).rev().map(term).sum() } else { (0..k).map(term).sum() };
            // With beta = 0, C is not read and may hold anything.
            let added = if beta == 0.0 { 0.0 } else { beta * before[row + column * leading_c] };
            result[row + column * leading_d] = alpha * sum + added;
        }
        of_d.write(d, &result)
    });
    if answer == 0 { SUCCESS } else { INVALID_VALUE }
}
