//! Atomic file writes, for the files that TypeScript writes itself.

use std::path::PathBuf;

use kindling_core::staging;
use napi::bindgen_prelude::{AsyncTask, Uint8Array};

use crate::task::{Job, spawn};

/// Writes the file `path` completely or not at all, replacing an existing one, and syncs it to
/// disk.
#[napi(catch_unwind, ts_return_type = "Promise<void>")]
pub fn write_file_atomic(path: String, bytes: Uint8Array) -> AsyncTask<Job<Vec<u8>, ()>> {
    spawn(bytes.to_vec(), move |bytes| staging::write_file_atomic(&PathBuf::from(path), bytes))
}
