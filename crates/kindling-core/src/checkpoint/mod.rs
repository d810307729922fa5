//! Checkpoints: folders with `model.safetensors`, `optimizer.safetensors` and `state.json`, and
//! after training on a CUDA device `cuda_products.json`.
//!
//! A folder is written under a temporary name next to its final place, synced, and renamed, so it
//! is either complete or absent. The same state always gives the same bytes. `state.json` has a
//! checksum of every tensor and of itself, which loading verifies.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::checksum::WideChecksum;
use crate::device::Device;
use crate::model::{Described, Parameter, Transformer, match_tensors};
use crate::optim::Optimizer;
use crate::progress::{Counted, Progress, f32_bytes, silent};
use crate::whole_file::read_whole;
use crate::{Error, Result};

mod names;
mod snapshot;
mod state;
mod tensor_file;
mod write;

use names::{MODEL, OPTIMIZER, PRODUCTS};
pub use snapshot::Snapshot;
pub use state::{OptimizerState, State, read_state};
pub use tensor_file::FileRecord;
use tensor_file::{Entry, TensorFile, damaged};
use write::Contents;

/// Saves the model, the optimizer, `iteration` (the number of updates made), and `run` as JSON to
/// the folder `path`, replacing an existing one.
///
/// # Errors
/// Returns `ERR_IO`, `ERR_DISK_FULL` or `ERR_NOT_WRITABLE` if the folder cannot be written.
/// Whatever was at `path` is then untouched.
pub fn save(
    path: &Path,
    model: &Transformer,
    optimizer: Option<&dyn Optimizer>,
    iteration: u64,
    run: impl Serialize,
) -> Result<()> {
    save_reporting(path, model, optimizer, iteration, run, &mut silent)
}

/// Saves as `save` does, and reports the bytes of tensors written.
///
/// # Errors
/// As `save`, and errors of `progress`.
pub fn save_reporting(
    path: &Path,
    model: &Transformer,
    optimizer: Option<&dyn Optimizer>,
    iteration: u64,
    run: impl Serialize,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let products = algorithms_of(model);
    let contents = Contents {
        parameters: model.parameters(),
        weights: model.current_weights()?,
        moments: optimizer.map(Optimizer::buffers),
        products: products.as_deref(),
        state: new_state(model, optimizer, iteration, run)?,
    };
    contents.write(path, progress)
}

/// Returns the state of a checkpoint whose files are not written yet.
fn new_state(
    model: &Transformer,
    optimizer: Option<&dyn Optimizer>,
    iteration: u64,
    run: impl Serialize,
) -> Result<State> {
    let run = serde_json::value::to_raw_value(&run);
    Ok(State {
        format_version: state::FORMAT_VERSION,
        iteration,
        model: model.config().clone(),
        optimizer: optimizer
            .map(|o| OptimizerState { kind: o.kind().to_owned(), steps: o.steps() }),
        run: run.map_err(|error| {
            Error::argument(format!("the run state cannot be saved as JSON: {error}"))
        })?,
        files: BTreeMap::new(),
        checksum: None,
    })
}

/// Returns the algorithms that a CUDA device has chosen for its matrix products, if any.
fn algorithms_of(model: &Transformer) -> Option<String> {
    match model.device() {
        Device::Cpu(_) => None,
        Device::Cuda(gpu) => gpu.algorithms(),
    }
}

/// Loads the weights and, if an optimizer is given, its state. Returns the contents of
/// `state.json`.
///
/// All files are verified by their checksums first, then read one tensor at a time.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if there is no checkpoint at `path`, `ERR_INVALID_CHECKPOINT` naming the
/// file and tensor if it is damaged, and `ERR_CHECKPOINT_MISMATCH` with all differences if it
/// belongs to another model or optimizer. The model and the optimizer are then unchanged. A disk
/// that fails after the comparison leaves them partly loaded.
pub fn load(
    path: &Path,
    model: &mut Transformer,
    optimizer: Option<&mut dyn Optimizer>,
) -> Result<State> {
    load_reporting(path, model, optimizer, &mut silent)
}

/// Loads as `load` does, and reports the bytes read. A file with checksums is read twice: to verify
/// it, then for its tensors.
///
/// # Errors
/// As `load`, and errors of `progress`, which may leave the model and the optimizer partly loaded.
pub fn load_reporting(
    path: &Path,
    model: &mut Transformer,
    optimizer: Option<&mut dyn Optimizer>,
    progress: &mut Progress<'_>,
) -> Result<State> {
    let state = read_state(path)?;
    if let Some(optimizer) = &optimizer {
        check_kind(&state, *optimizer)?;
    }
    let mut differences = state.differences(model.config())?;
    let mut open = |name: &str, prefixes: &[&str]| {
        let file = TensorFile::open(&path.join(name), state.files.get(name))?;
        Ok::<_, Error>(Opened::new(file, model.parameters(), prefixes, &mut differences))
    };
    let mut weights = open(MODEL, &[""])?;
    let mut moments = None;
    if let Some(optimizer) = optimizer {
        let prefixes: Vec<_> = optimizer.buffers().iter().map(|(prefix, _)| *prefix).collect();
        let opened = open(OPTIMIZER, &prefixes)?;
        moments = Some((optimizer, opened));
    }
    if !differences.is_empty() {
        return Err(Error::CheckpointMismatch(differences.join("; ")));
    }
    let products = read_products(path, &state)?;
    let files = std::iter::once(&weights).chain(moments.iter().map(|(_, opened)| opened));
    let bytes = files.map(|opened| opened.bytes() + opened.file.bytes_to_verify()).sum();
    let mut read = Counted::new(bytes, progress);
    weights.file.verify(&mut read)?;
    if let Some((_, opened)) = &mut moments {
        opened.file.verify(&mut read)?;
    }
    model.set_weights(|parameter| weights.read("", parameter, &mut read))?;
    if let Some((optimizer, mut opened)) = moments {
        for (prefix, flat) in optimizer.buffers_mut() {
            for parameter in model.parameters() {
                let data = opened.read(prefix, parameter, &mut read)?;
                flat.write_range(parameter.range.clone(), &parameter.in_memory(&data))?;
            }
        }
        optimizer.set_steps(state.optimizer.as_ref().map_or(0, |saved| saved.steps));
    }
    if let (Device::Cuda(gpu), Some(products)) = (model.device(), products) {
        // Algorithms of another device or library do not apply, and the device chooses anew.
        gpu.use_algorithms(&products);
    }
    Ok(state)
}

/// Checks that the checkpoint has the state of an optimizer of the same kind.
fn check_kind(state: &State, optimizer: &dyn Optimizer) -> Result<()> {
    let mismatch = match &state.optimizer {
        None => "the checkpoint has no optimizer state".to_owned(),
        Some(saved) if saved.kind != optimizer.kind() => format!(
            "the checkpoint was saved with {}, but the optimizer to load is {}",
            saved.kind,
            optimizer.kind()
        ),
        Some(_) => return Ok(()),
    };
    Err(Error::CheckpointMismatch(mismatch))
}

/// An open file, and its tensors by the names that the model gives them.
struct Opened {
    file: TensorFile,
    found: BTreeMap<String, Entry>,
}

impl Opened {
    /// Matches the tensors of a file with all parameters under each of `prefixes`. Adds what is
    /// wrong to `differences`.
    fn new(
        file: TensorFile,
        parameters: &[Parameter],
        prefixes: &[&str],
        differences: &mut Vec<String>,
    ) -> Self {
        let found = match match_tensors(parameters, prefixes, &file.entries) {
            Ok(found) => found.into_iter().map(|(name, entry)| (name, entry.clone())).collect(),
            Err(difference) => {
                differences.push(difference);
                BTreeMap::new()
            }
        };
        Self { file, found }
    }

    /// Returns the bytes of the tensors that are read.
    fn bytes(&self) -> u64 {
        f32_bytes(self.found.values().map(Described::elements).sum())
    }

    fn read(
        &mut self,
        prefix: &str,
        parameter: &Parameter,
        read: &mut Counted<'_, '_>,
    ) -> Result<Vec<f32>> {
        read.add(f32_bytes(parameter.range.len()))?;
        self.file.read(&self.found[&format!("{prefix}{}", parameter.name)])
    }
}

/// Reads the algorithms of matrix products on a CUDA device, if the checkpoint has them.
fn read_products(path: &Path, state: &State) -> Result<Option<String>> {
    let file = path.join(PRODUCTS);
    let record = state.files.get(PRODUCTS);
    if record.is_none() && !file.exists() {
        return Ok(None);
    }
    let bytes = read_whole(&file, Error::InvalidCheckpoint)?;
    if record.is_some_and(|record| record.head != WideChecksum::of(&bytes)) {
        return Err(damaged(&file, "its checksum differs from state.json"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| damaged(&file, "it is not UTF-8"))
}
