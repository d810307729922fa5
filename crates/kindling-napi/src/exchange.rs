//! Imports and exports models in the formats of other programs. The public functions are in
//! `src/exchange/`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kindling_core::exchange::{
    Companions, CourseSizes as EngineSizes, Export, ExportFormat, ModelSource as Engine, TensorType,
};
use kindling_core::model::Transformer as EngineModel;
use kindling_core::tokenizer::Tokenizer as CoreTokenizer;
use kindling_core::{Error, Result, checkpoint};
use napi::bindgen_prelude::AsyncTask;

use crate::error::to_napi;
use crate::exclusive::Guard;
use crate::model::{Model, Transformer};
use crate::monitor::Monitor;
use crate::options::{integer, size};
use crate::task::{Job, spawn};
use crate::tokenizer::Tokenizer;

/// Sizes that the shapes of a course checkpoint's tensors do not give. Other formats ignore them.
#[napi(object)]
pub struct CourseSizes {
    /// Query heads. Required for a course checkpoint.
    pub num_heads: Option<f64>,
    /// Longest context in tokens. Default: that of the rotary tables in the file, else 512.
    pub max_seq_length: Option<f64>,
    /// Base of the rotary angles. Default 100000.
    pub theta: Option<f64>,
}

impl CourseSizes {
    fn lower(&self) -> Result<EngineSizes> {
        let whole = |name: &str, value: Option<f64>| value.map(|v| size(name, v)).transpose();
        Ok(EngineSizes {
            num_heads: whole("numHeads", self.num_heads)?,
            max_seq_length: whole("maxSeqLength", self.max_seq_length)?,
            theta: self.theta,
        })
    }
}

/// An open model of another program: sizes and tensors are checked, weights not read yet.
#[napi]
pub struct ModelFiles {
    inner: Arc<Mutex<Engine>>,
    /// `hugging-face`, `gguf`, `pytorch` or `safetensors`.
    #[napi(readonly)]
    pub format: String,
    /// `llama`, `mistral`, `qwen2`, `qwen3`, or `course` for files with the course's tensor names.
    #[napi(readonly)]
    pub architecture: String,
    /// The model's configuration as JSON text, with keys in `snake_case`.
    #[napi(readonly)]
    pub config: String,
    companions: HashMap<String, String>,
}

#[napi]
impl ModelFiles {
    /// Opens a Hugging Face folder, or a GGUF, PyTorch or safetensors file, recognized by its first
    /// bytes.
    ///
    /// Fails with `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if a file is damaged or its tensors do not
    /// fit its configuration, or `ERR_UNSUPPORTED` naming what the engine cannot compute.
    #[napi(catch_unwind, ts_return_type = "Promise<ModelFiles>")]
    pub fn open(path: String, sizes: CourseSizes) -> napi::Result<AsyncTask<Job<(), ModelFiles>>> {
        let sizes = sizes.lower().map_err(to_napi)?;
        Ok(spawn((), move |()| {
            let source = Engine::open(&PathBuf::from(path), &sizes)?;
            Ok(Self {
                format: source.format.name().to_owned(),
                architecture: source.architecture.clone(),
                config: serde_json::to_string(&source.config)
                    .map_err(|error| Error::Internal(error.to_string()))?,
                companions: source.companions.clone().into_iter().collect(),
                inner: Arc::new(Mutex::new(source)),
            })
        }))
    }

    /// Returns the text files that belong to the model, such as `tokenizer_config.json`, by name.
    #[napi(catch_unwind)]
    pub fn companions(&self) -> HashMap<String, String> {
        self.companions.clone()
    }

    /// Opens the model's tokenizer; null if it has none.
    #[napi(catch_unwind, ts_return_type = "Promise<Tokenizer | null>")]
    pub fn tokenizer(&self) -> AsyncTask<Job<(), Option<Tokenizer>>> {
        let inner = Arc::clone(&self.inner);
        spawn((), move |()| Ok(locked(&inner).tokenizer()?.map(Tokenizer::new)))
    }

    /// Reads the weights into a model of the same sizes. Fails with `ERR_CHECKPOINT_MISMATCH` if
    /// the sizes differ. `monitor` counts bytes as f32.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn read_into(
        &self,
        model: &Transformer,
        monitor: &Monitor,
    ) -> napi::Result<AsyncTask<Job<Guard<Model>, ()>>> {
        let inner = Arc::clone(&self.inner);
        let mut progress = monitor.progress();
        Ok(spawn(model.acquire()?, move |guard| {
            guard.with(|model| model.load(|engine| locked(&inner).read_into(engine, &mut progress)))
        }))
    }
}

fn locked(source: &Mutex<Engine>) -> std::sync::MutexGuard<'_, Engine> {
    // A panic in an earlier call leaves nothing inconsistent but a file position, which reads set
    // anew.
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Options for exporting a model.
#[napi(object)]
pub struct ExportOptions {
    /// `hf` (a Hugging Face folder), `gguf` or `safetensors`.
    pub format: String,
    /// Element type of the tensors: `f32`, `bf16`, `f16`, or `q8_0` for GGUF.
    pub dtype: String,
    /// Name of the model in GGUF.
    pub name: String,
    /// Further files of a Hugging Face folder: their texts by name.
    pub companions: HashMap<String, String>,
}

/// Everything of an export but the model.
struct Exported {
    tokenizer: Option<Arc<CoreTokenizer>>,
    companions: Companions,
    kind: TensorType,
    format: ExportFormat,
    name: String,
}

impl Exported {
    fn new(tokenizer: Option<&Tokenizer>, options: ExportOptions) -> Result<Self> {
        Ok(Self {
            tokenizer: tokenizer.map(|tokenizer| Arc::clone(&tokenizer.inner)),
            companions: options.companions.into_iter().collect(),
            kind: TensorType::from_name(&options.dtype)?,
            format: ExportFormat::from_name(&options.format)?,
            name: options.name,
        })
    }

    fn of<'a>(&'a self, model: &'a EngineModel) -> Export<'a> {
        Export {
            model,
            tokenizer: self.tokenizer.as_deref(),
            companions: &self.companions,
            kind: self.kind,
            name: &self.name,
        }
    }
}

/// Writes a model for other programs to `out`: a new or empty folder for `hf`, else a file.
///
/// Fails with `ERR_INVALID_ARGUMENT` if the folder is not empty, `ERR_UNSUPPORTED` for options that
/// no architecture of the format has, or `ERR_INVALID_TOKENIZER` for a tokenizer unknown to
/// llama.cpp; `out` is then unchanged. `monitor` counts the bytes of the tensors.
#[napi(catch_unwind, ts_return_type = "Promise<void>")]
pub fn export_model(
    out: String,
    model: &Transformer,
    tokenizer: Option<&Tokenizer>,
    options: ExportOptions,
    monitor: &Monitor,
) -> napi::Result<AsyncTask<Job<Guard<Model>, ()>>> {
    let exported = Exported::new(tokenizer, options).map_err(to_napi)?;
    let mut progress = monitor.progress();
    Ok(spawn(model.acquire()?, move |guard| {
        guard.with(|model| {
            let export = exported.of(model.engine()?);
            export.write(exported.format, &PathBuf::from(out), &mut progress)
        })
    }))
}

/// Makes the checks that `exportModel` makes before it writes. Returns the bytes that the tensors
/// will take.
#[napi(catch_unwind, ts_return_type = "Promise<number>")]
pub fn plan_export(
    out: String,
    model: &Transformer,
    tokenizer: Option<&Tokenizer>,
    options: ExportOptions,
) -> napi::Result<AsyncTask<Job<Guard<Model>, f64>>> {
    let exported = Exported::new(tokenizer, options).map_err(to_napi)?;
    Ok(spawn(model.acquire()?, move |guard| {
        guard.with(|model| {
            model.inspect(|engine| {
                let bytes =
                    exported.of(engine).planned_bytes(exported.format, &PathBuf::from(out))?;
                Ok(bytes as f64)
            })
        })
    }))
}

/// Writes the checkpoint folder `path` with the weights alone, of a model that has no optimizer.
/// `monitor` counts bytes written.
#[napi(catch_unwind, ts_return_type = "Promise<void>")]
pub fn save_weights(
    path: String,
    model: &Transformer,
    iteration: f64,
    monitor: &Monitor,
) -> napi::Result<AsyncTask<Job<Guard<Model>, ()>>> {
    let iteration = integer("iteration", iteration).map_err(to_napi)?;
    let mut progress = monitor.progress();
    Ok(spawn(model.acquire()?, move |guard| {
        let (path, run) = (PathBuf::from(path), serde_json::json!({}));
        guard.with(|model| {
            let engine = model.engine()?;
            checkpoint::save_reporting(&path, engine, None, iteration, run, &mut progress)
        })
    }))
}
