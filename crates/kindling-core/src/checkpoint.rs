//! Checkpoints: a folder with `model.safetensors`, `optimizer.safetensors` and `state.json`; of a
//! CUDA device, `cuda_products.json` too.
//!
//! The folder is written under a temporary name next to its final place, synced, and renamed. So it
//! is either complete or absent. The same state always gives the same bytes.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::IoAction;
use crate::model::{NamedTensor, Transformer};
use crate::optim::Optimizer;
use crate::staging::{StagedFolder, write_synced};
use crate::{Error, Result};

const FORMAT_VERSION: u32 = 1;
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// Algorithms of the matrix products, with which a resumed run has the same bits.
const PRODUCTS: &str = "cuda_products.json";

/// Contents of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of the layout of `state.json`.
    pub format_version: u32,
    /// Number of updates made.
    pub iteration: u64,
    pub model: ModelConfig,
    pub optimizer: Option<OptimizerState>,
    /// JSON stored for the caller.
    #[serde(default)]
    pub run: serde_json::Value,
}

/// The optimizer's part of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OptimizerState {
    /// `adamw` or `sgd`.
    pub kind: String,
    /// Number of updates that this optimizer has made.
    pub steps: u64,
}

/// Saves the model, the optimizer and the number of updates made to the folder `path`, replacing an
/// existing one.
///
/// # Errors
/// Returns `ERR_IO`, `ERR_DISK_FULL` or `ERR_NOT_WRITABLE` if the folder cannot be written.
/// Whatever was at `path` is then untouched.
pub fn save(
    path: &Path,
    model: &Transformer,
    optimizer: Option<&dyn Optimizer>,
    iteration: u64,
    run: serde_json::Value,
) -> Result<()> {
    let name = path.file_name().ok_or_else(|| {
        Error::argument(format!("cannot save to {}; give the path of a folder", path.display()))
    })?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let state = State {
        format_version: FORMAT_VERSION,
        iteration,
        model: model.config().clone(),
        optimizer: optimizer
            .map(|o| OptimizerState { kind: o.kind().to_owned(), steps: o.steps() }),
        run,
    };
    let staged = StagedFolder::new(parent, &name.to_string_lossy())?;
    write_folder(staged.path(), model, optimizer, &state)?;
    staged.commit(path)
}

/// Loads the weights and, if an optimizer is given, its state. Returns the contents of
/// `state.json`.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if there is no checkpoint at `path`, `ERR_INVALID_CHECKPOINT` if it is
/// damaged, and `ERR_CHECKPOINT_MISMATCH` if it belongs to another shape or optimizer. The model
/// and the optimizer are then unchanged.
pub fn load(
    path: &Path,
    model: &mut Transformer,
    optimizer: Option<&mut dyn Optimizer>,
) -> Result<State> {
    let state = read_state(path)?;
    let weights = read_tensors(&path.join(MODEL))?;
    match (optimizer, &state.optimizer) {
        (Some(optimizer), Some(saved)) => {
            if optimizer.kind() != saved.kind {
                return Err(Error::CheckpointMismatch(format!(
                    "the checkpoint was saved with {}, but the optimizer to load is {}",
                    saved.kind,
                    optimizer.kind()
                )));
            }
            let moments = read_tensors(&path.join(OPTIMIZER))?;
            crate::model::match_tensors(model.parameters(), &weights, "")?;
            optimizer.load_state(model, &moments, saved.steps)?;
        }
        (Some(_), None) => {
            return Err(Error::CheckpointMismatch(
                "the checkpoint has no optimizer state".to_owned(),
            ));
        }
        (None, _) => {}
    }
    model.load_state_dict(&weights)?;
    if let (Device::Cuda(gpu), Ok(stored)) =
        (model.device(), fs::read_to_string(path.join(PRODUCTS)))
    {
        // Those of another device or library do not apply, and the device chooses anew.
        gpu.use_algorithms(&stored);
    }
    Ok(state)
}

/// Reads `state.json`, which has the model's shape.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if there is no checkpoint at `path`, and `ERR_INVALID_CHECKPOINT` if the
/// file is damaged or written by a newer version.
pub fn read_state(path: &Path) -> Result<State> {
    if !path.is_dir() {
        return Err(Error::NotFound { what: "checkpoint", path: path.to_path_buf() });
    }
    let file = path.join(STATE);
    let text = fs::read(&file).map_err(|e| Error::io(IoAction::Read, &file, e))?;
    let state: State = serde_json::from_slice(&text)
        .map_err(|e| Error::InvalidCheckpoint(format!("{} is damaged: {e}", file.display())))?;
    if state.format_version > FORMAT_VERSION {
        return Err(Error::InvalidCheckpoint(format!(
            "{} has format_version {}; this Kindling reads up to {FORMAT_VERSION}, so update it",
            file.display(),
            state.format_version
        )));
    }
    Ok(state)
}

/// Reads a safetensors file of f32 tensors.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if the file does not exist, and `ERR_INVALID_CHECKPOINT` if it is
/// damaged or holds a tensor of another dtype.
pub fn read_tensors(path: &Path) -> Result<Vec<NamedTensor>> {
    let bytes = fs::read(path).map_err(|e| Error::io(IoAction::Read, path, e))?;
    let damaged =
        |what: String| Error::InvalidCheckpoint(format!("{} is damaged: {what}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!(
                    "the dtype of {name} is {:?}; it must be F32",
                    view.dtype()
                )));
            }
            let data = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            Ok(NamedTensor { name, shape: view.shape().to_vec(), data })
        })
        .collect()
}

/// Writes tensors to a safetensors file and syncs it.
///
/// # Errors
/// Returns `ERR_IO`, `ERR_DISK_FULL` or `ERR_NOT_WRITABLE` if the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|t| t.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .zip(&bytes)
        .map(|(t, bytes)| {
            TensorView::new(Dtype::F32, t.shape.clone(), bytes).map(|view| (t.name.as_str(), view))
        })
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::Internal(e.to_string()))?;
    // Other tools look for this key. With a second key the order in the file would be random.
    let metadata = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    let file = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::Internal(e.to_string()))?;
    write_synced(path, &file)
}

fn write_folder(
    folder: &Path,
    model: &Transformer,
    optimizer: Option<&dyn Optimizer>,
    state: &State,
) -> Result<()> {
    write_tensors(&folder.join(MODEL), &model.state_dict()?)?;
    if let Some(optimizer) = optimizer {
        write_tensors(&folder.join(OPTIMIZER), &optimizer.state(model)?)?;
    }
    if let Device::Cuda(gpu) = model.device()
        && let Some(algorithms) = gpu.algorithms()
    {
        write_synced(&folder.join(PRODUCTS), algorithms.as_bytes())?;
    }
    let text = serde_json::to_vec_pretty(state).map_err(|e| Error::Internal(e.to_string()))?;
    write_synced(&folder.join(STATE), &text)
}
