//! Tests of importing and exporting models, against what other programs make of the same files.
//!
//! The fixtures are made by `scripts/fixtures/transformers_models.py` with Hugging Face's transformers,
//! llama.cpp's Python package and PyTorch.

mod allocations;
mod bad_files;
mod models;

use std::path::{Path, PathBuf};

use kindling_core::Result;
use kindling_core::device::Device;
use kindling_core::exchange::{CourseSizes, ModelSource};
use kindling_core::model::Transformer;
use kindling_core::progress::silent;

/// Returns the path of a fixture.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exchange/models").join(name)
}

/// Opens a model and reads its weights.
fn import(path: &Path, sizes: &CourseSizes) -> Result<Transformer> {
    let mut source = ModelSource::open(path, sizes)?;
    let mut model = Transformer::blank(source.config.clone(), Device::cpu(1))?;
    source.read_into(&mut model, &mut silent)?;
    Ok(model)
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kindling-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
