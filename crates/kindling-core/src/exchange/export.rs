//! Writes a model for other programs: as a Hugging Face folder, GGUF or safetensors.
//!
//! Everything is written under a temporary name and renamed. Memory holds one converted tensor at a
//! time.

use std::path::{Path, PathBuf};

use super::companions::{self, Companions, SpecialIds};
use super::gguf::{self, ModelMetadata, Value};
use super::names::Naming;
use super::tensor_type::TensorType;
use super::tensor_writer::NewTensor;
use super::{hugging_face, safetensors};
use crate::error::IoAction;
use crate::model::{Parameter, Transformer};
use crate::progress::{Counted, Progress};
use crate::staging::{StagedFolder, sync_folder, write_synced};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A model to export.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    pub model: &'a Transformer,
    pub tokenizer: Option<&'a Tokenizer>,
    /// Further files of a folder, by name: those of an imported model, and README.md.
    pub companions: &'a Companions,
    /// Element type of the tensors.
    pub kind: TensorType,
    /// Name of the model, for GGUF.
    pub name: &'a str,
}

/// The format in which a model is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    HuggingFace,
    Gguf,
    Safetensors,
}

impl ExportFormat {
    /// Returns the format that `--format` names.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "hf" => Ok(Self::HuggingFace),
            "gguf" => Ok(Self::Gguf),
            "safetensors" => Ok(Self::Safetensors),
            other => Err(Error::argument(format!(
                "unknown format \"{other}\"; use hf, gguf or safetensors"
            ))),
        }
    }
}

/// The contents of a GGUF file, except for the elements of its tensors.
struct GgufParts {
    naming: Naming,
    metadata: Vec<(String, Value)>,
    tensors: Vec<NewTensor>,
    /// The last tensor, if the rotary angles are scaled: the divisors of the frequencies (hs / 2).
    factors: Option<Vec<f32>>,
}

impl Export<'_> {
    /// Writes the safetensors file `out`, with the course's names and shapes. Reports the bytes of
    /// tensors written.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for `q8_0`, `ERR_NOT_WRITABLE`, `ERR_DISK_FULL`, other I/O
    /// errors and those of `progress`. Whatever was at `out` is then untouched.
    pub fn safetensors(&self, out: &Path, progress: &mut Progress<'_>) -> Result<()> {
        write_beside(out, |path| self.write_safetensors(path, Naming::Course, progress))
    }

    /// Makes the checks that `hugging_face`, `gguf` or `safetensors` makes before it writes, and
    /// returns the bytes of the tensors. Reads no weights, so a blank model will do.
    ///
    /// # Errors
    /// As the method for `format`.
    pub fn planned_bytes(&self, format: ExportFormat, out: &Path) -> Result<u64> {
        parts_of(out)?;
        match format {
            ExportFormat::HuggingFace => {
                self.hugging_face_config(out)?;
                bytes_of(&self.tensors(Naming::HuggingFace))
            }
            ExportFormat::Gguf => bytes_of(&self.gguf_parts()?.tensors),
            ExportFormat::Safetensors => bytes_of(&self.tensors(Naming::Course)),
        }
    }

    /// Writes `out` in the given format.
    ///
    /// # Errors
    /// As the method for `format`.
    pub fn write(
        &self,
        format: ExportFormat,
        out: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        match format {
            ExportFormat::HuggingFace => self.hugging_face(out, progress),
            ExportFormat::Gguf => self.gguf(out, progress),
            ExportFormat::Safetensors => self.safetensors(out, progress),
        }
    }

    /// Writes the Hugging Face folder `out`, which must not exist or must be empty.
    ///
    /// # Errors
    /// As `safetensors`; also `ERR_INVALID_ARGUMENT` if `out` exists and is not empty, and
    /// `ERR_UNSUPPORTED` for options that no architecture of transformers has.
    pub fn hugging_face(&self, out: &Path, progress: &mut Progress<'_>) -> Result<()> {
        let (ids, config) = self.hugging_face_config(out)?;
        let (parent, name) = parts_of(out)?;
        let staged = StagedFolder::new(&parent, &name)?;
        let folder = staged.path();
        write_synced(&folder.join("config.json"), config.as_bytes())?;
        let mut companions = self.companions.clone();
        if let Some(tokenizer) = self.tokenizer {
            tokenizer.save(folder)?;
            let context = self.model.config().max_seq_length;
            companions = companions::completed(&companions, tokenizer, &ids, context);
        }
        for (name, text) in &companions {
            write_synced(&folder.join(name), text.as_bytes())?;
        }
        self.write_safetensors(&folder.join("model.safetensors"), Naming::HuggingFace, progress)?;
        staged.commit(out)
    }

    /// Checks that `out` does not exist or is empty. Returns the special ids and the text of
    /// config.json.
    fn hugging_face_config(&self, out: &Path) -> Result<(SpecialIds, String)> {
        check_free(out)?;
        let ids = SpecialIds::of(self.companions, self.tokenizer);
        let config = hugging_face::config_json(self.model.config(), self.kind, &ids)?;
        Ok((ids, config))
    }

    /// Writes the GGUF file `out`.
    ///
    /// # Errors
    /// As `safetensors`, but `q8_0` is written too; also `ERR_INVALID_TOKENIZER` for a tokenizer
    /// unknown to llama.cpp, and `ERR_UNSUPPORTED` for options that no architecture of llama.cpp
    /// has.
    pub fn gguf(&self, out: &Path, progress: &mut Progress<'_>) -> Result<()> {
        let GgufParts { naming, metadata, tensors, factors } = self.gguf_parts()?;
        let parameters = self.model.parameters();
        let mut written = Counted::new(bytes_of(&tensors)?, progress);
        write_beside(out, |path| {
            gguf::write(path, &metadata, &tensors, &mut |index| {
                written.add(tensors[index].bytes()?)?;
                match parameters.get(index) {
                    Some(parameter) => self.values(naming, parameter),
                    None => Ok(factors.clone().unwrap_or_default().into()),
                }
            })
        })
    }

    /// Makes the contents of a GGUF file, except for the elements of its tensors.
    fn gguf_parts(&self) -> Result<GgufParts> {
        let config = self.model.config();
        let ModelMetadata { architecture, naming, sizes } = gguf::metadata_of(config)?;
        let text = |text: &str| Value::Text(text.to_owned());
        let mut metadata = vec![
            ("general.architecture".to_owned(), text(architecture)),
            ("general.type".to_owned(), text("model")),
            ("general.name".to_owned(), text(self.name)),
            ("general.file_type".to_owned(), Value::Integer(self.file_type())),
            ("general.quantization_version".to_owned(), Value::Integer(2)),
        ];
        metadata.extend(sizes);
        if let Some(tokenizer) = self.tokenizer {
            metadata.extend(self.gguf_tokenizer(tokenizer)?);
        }
        let mut tensors = self.tensors(naming);
        let factors = config.rope_scaling.is_some().then(|| gguf::rope_factors(config));
        if let Some(factors) = &factors {
            let (name, shape) = (gguf::ROPE_FACTORS.to_owned(), vec![factors.len()]);
            tensors.push(NewTensor { name, shape, kind: TensorType::F32 });
        }
        Ok(GgufParts { naming, metadata, tensors, factors })
    }

    /// Returns llama.cpp's `LLAMA_FTYPE` number of the type that most tensors have.
    fn file_type(&self) -> i128 {
        match self.kind {
            TensorType::F16 => 1,
            TensorType::Q8_0 => 7,
            TensorType::Bf16 => 32,
            _ => 0,
        }
    }

    fn gguf_tokenizer(&self, tokenizer: &Tokenizer) -> Result<Vec<(String, Value)>> {
        let mut vocab = tokenizer.to_gguf()?;
        // Tokens that only pad the embedding get type 5, unused.
        for id in vocab.tokens.len()..self.model.config().vocab_size {
            vocab.tokens.push(format!("[PAD{id}]"));
            vocab.token_types.push(5);
        }
        let ids = SpecialIds::of(self.companions, Some(tokenizer));
        let adds_bos = tokenizer.bos_of_template().is_some()
            || companions::adds_bos(self.companions) == Some(true);
        let types = vocab.token_types.iter().map(|kind| i64::from(*kind)).collect();
        let mut values = vec![
            ("ggml.model", Value::Text("gpt2".to_owned())),
            ("ggml.pre", Value::Text(vocab.pre)),
            ("ggml.tokens", Value::Texts(vocab.tokens)),
            ("ggml.token_type", Value::Integers(types)),
            ("ggml.merges", Value::Texts(vocab.merges)),
            ("ggml.add_bos_token", Value::Bool(adds_bos)),
            ("ggml.add_space_prefix", Value::Bool(false)),
        ];
        for (name, id) in [
            ("ggml.bos_token_id", ids.bos),
            ("ggml.eos_token_id", ids.eos),
            ("ggml.padding_token_id", ids.padding),
        ] {
            values.extend(id.map(|id| (name, Value::Integer(id.into()))));
        }
        if let Some(template) = companions::chat_template(self.companions) {
            values.push(("chat_template", Value::Text(template)));
        }
        let named = values.into_iter().map(|(name, value)| (format!("tokenizer.{name}"), value));
        Ok(named.collect())
    }

    fn write_safetensors(
        &self,
        path: &Path,
        naming: Naming,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let mut tensors: Vec<_> =
            self.tensors(naming).into_iter().zip(self.model.parameters()).collect();
        // Sorted as the safetensors crate sorts them, so that the bytes are the same.
        tensors.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (tensors, parameters): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
        let mut written = Counted::new(bytes_of(&tensors)?, progress);
        safetensors::write(path, &tensors, &mut |index| {
            written.add(tensors[index].bytes()?)?;
            self.values(naming, parameters[index])
        })
    }

    /// Returns the tensors in the order of the parameters.
    fn tensors(&self, naming: Naming) -> Vec<NewTensor> {
        let is_gguf = matches!(naming, Naming::GgufPairs | Naming::GgufHalves);
        let tensor = |parameter: &Parameter| {
            let name = naming.name_of(parameter).unwrap_or_else(|| parameter.name.clone());
            let shape = naming.shape_of(parameter);
            let row = shape.last().copied().unwrap_or(1);
            // As in llama.cpp's converter, vectors stay f32, and rows that are not whole blocks
            // become f16.
            let kind = if is_gguf && shape.len() == 1 {
                TensorType::F32
            } else if !row.is_multiple_of(self.kind.block_elements()) {
                TensorType::F16
            } else {
                self.kind
            };
            NewTensor { name, shape, kind }
        };
        self.model.parameters().iter().map(tensor).collect()
    }

    fn values(&self, naming: Naming, parameter: &Parameter) -> Result<std::borrow::Cow<'_, [f32]>> {
        let memory = self.model.current_weights()?.read_range(parameter.range.clone())?;
        Ok(naming.to_file(self.model.config(), parameter, memory))
    }
}

/// Checks that `out` does not exist, or is an empty folder.
fn check_free(out: &Path) -> Result<()> {
    let is_free =
        !out.exists() || std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if is_free {
        return Ok(());
    }
    let out = out.display();
    Err(Error::argument(format!("{out} exists; choose another folder, or remove it")))
}

fn bytes_of(tensors: &[NewTensor]) -> Result<u64> {
    tensors.iter().map(NewTensor::bytes).sum()
}

/// Has `write` write a file under a temporary name, and moves it to `out`.
fn write_beside(out: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (parent, name) = parts_of(out)?;
    let staged = StagedFolder::new(&parent, &name)?;
    let file = staged.path().join(&name);
    write(&file)?;
    std::fs::rename(&file, out).map_err(|error| Error::io(IoAction::Write, out, error))?;
    sync_folder(&parent)?;
    staged.done();
    Ok(())
}

/// Returns the folder that contains `out`, and the name of `out` in it.
fn parts_of(out: &Path) -> Result<(PathBuf, String)> {
    let name = out.file_name().ok_or_else(|| {
        Error::argument(format!(
            "cannot write {}; give the path of a new file or folder",
            out.display()
        ))
    })?;
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")).to_path_buf(), name.to_string_lossy().into_owned()))
}
