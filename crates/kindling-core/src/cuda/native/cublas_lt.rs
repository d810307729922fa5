//! The functions of cuBLASLt that products call, looked up in the open library.
//! Source: `cublasLt.h` of CUDA 13.0.

use std::ffi::{c_int, c_void};

use cudarc::cublaslt::sys as lt;

/// A `cublasStatus_t`. Not the enum, which could not hold a status that a newer library adds.
pub type Status = c_int;
pub const SUCCESS: Status = 0;

macro_rules! functions {
    ($($field:ident = $name:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions of cuBLASLt that products call.
        #[derive(Debug, Clone, Copy)]
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// Looks the functions up in an open library. Returns `None` if it lacks one.
            pub fn of(library: *mut c_void) -> Option<Self> {
                // SAFETY: the library is open; each symbol is a function of the type that
                // cublasLt.h declares.
                unsafe {
                    Some(Self {
                        $($field: {
                            let symbol = libc::dlsym(library, $name.as_ptr());
                            if symbol.is_null() {
                                return None;
                            }
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) -> $result,
                            >(symbol)
                        },)*
                    })
                }
            }
        }
    };
}

functions! {
    create = c"cublasLtCreate"(*mut lt::cublasLtHandle_t) -> Status;
    destroy = c"cublasLtDestroy"(lt::cublasLtHandle_t) -> Status;
    create_description = c"cublasLtMatmulDescCreate"(*mut lt::cublasLtMatmulDesc_t, c_int, c_int) -> Status;
    destroy_description = c"cublasLtMatmulDescDestroy"(lt::cublasLtMatmulDesc_t) -> Status;
    describe = c"cublasLtMatmulDescSetAttribute"(
        lt::cublasLtMatmulDesc_t, c_int, *const c_void, usize) -> Status;
    create_layout = c"cublasLtMatrixLayoutCreate"(
        *mut lt::cublasLtMatrixLayout_t, c_int, u64, u64, i64) -> Status;
    destroy_layout = c"cublasLtMatrixLayoutDestroy"(lt::cublasLtMatrixLayout_t) -> Status;
    create_preference = c"cublasLtMatmulPreferenceCreate"(*mut lt::cublasLtMatmulPreference_t) -> Status;
    destroy_preference = c"cublasLtMatmulPreferenceDestroy"(lt::cublasLtMatmulPreference_t) -> Status;
    prefer = c"cublasLtMatmulPreferenceSetAttribute"(
        lt::cublasLtMatmulPreference_t, c_int, *const c_void, usize) -> Status;
    heuristic = c"cublasLtMatmulAlgoGetHeuristic"(
        lt::cublasLtHandle_t, lt::cublasLtMatmulDesc_t, lt::cublasLtMatrixLayout_t,
        lt::cublasLtMatrixLayout_t, lt::cublasLtMatrixLayout_t, lt::cublasLtMatrixLayout_t,
        lt::cublasLtMatmulPreference_t, c_int, *mut Algorithm, *mut c_int) -> Status;
    check = c"cublasLtMatmulAlgoCheck"(
        lt::cublasLtHandle_t, lt::cublasLtMatmulDesc_t, lt::cublasLtMatrixLayout_t,
        lt::cublasLtMatrixLayout_t, lt::cublasLtMatrixLayout_t, lt::cublasLtMatrixLayout_t,
        *const lt::cublasLtMatmulAlgo_t, *mut Algorithm) -> Status;
    version = c"cublasLtGetVersion"() -> usize;
    multiply = c"cublasLtMatmul"(
        lt::cublasLtHandle_t, lt::cublasLtMatmulDesc_t, *const c_void, *const c_void,
        lt::cublasLtMatrixLayout_t, *const c_void, lt::cublasLtMatrixLayout_t, *const c_void,
        *const c_void, lt::cublasLtMatrixLayout_t, *mut c_void, lt::cublasLtMatrixLayout_t,
        *const lt::cublasLtMatmulAlgo_t, *mut c_void, usize, lt::cudaStream_t) -> Status;
}

/// A `cublasLtMatmulHeuristicResult_t`, whose status is an integer as above.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Algorithm {
    pub words: lt::cublasLtMatmulAlgo_t,
    pub workspace_bytes: usize,
    pub state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

impl Algorithm {
    pub const NONE: Self = Self {
        words: lt::cublasLtMatmulAlgo_t { data: [0; 8] },
        workspace_bytes: 0,
        state: SUCCESS,
        waves: 0.0,
        reserved: [0; 4],
    };
}
