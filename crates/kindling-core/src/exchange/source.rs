//! Opens a model of another program: its configuration, its weights, its tokenizer.

use std::io::Read;
use std::path::Path;

use super::companions::{self, Companions, SpecialIds};
use super::course::{self, CourseSizes};
use super::gguf::{self, GgufFile};
use super::names::Naming;
use super::tensor_files::TensorFiles;
use super::{hugging_face, safetensors, torch};
use crate::config::ModelConfig;
use crate::error::IoAction;
use crate::model::{Layout, Transformer};
use crate::progress::{Counted, Progress, f32_bytes};
use crate::tokenizer::{GgufVocab, Template, Tokenizer};
use crate::whole_file::open_regular;
use crate::{Error, Result};

/// The format of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    HuggingFace,
    Gguf,
    Torch,
    Safetensors,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "hugging-face",
            Self::Gguf => "gguf",
            Self::Torch => "pytorch",
            Self::Safetensors => "safetensors",
        }
    }
}

/// An open model. Its tensors have been checked, but not read.
#[derive(Debug)]
pub struct ModelSource {
    pub format: Format,
    /// `llama`, `mistral`, `qwen2`, `qwen3` or `course`.
    pub architecture: String,
    pub config: ModelConfig,
    /// The text files that accompany it, such as `tokenizer_config.json`.
    pub companions: Companions,
    naming: Naming,
    tensors: TensorFiles,
    tokenizer: Option<TokenizerSource>,
}

/// The place of the tokenizer: a folder, or the metadata of a GGUF file.
#[derive(Debug)]
enum TokenizerSource {
    Folder(std::path::PathBuf),
    Vocab(Box<GgufVocab>),
}

impl ModelSource {
    /// Opens a Hugging Face folder, a GGUF file, or a PyTorch or safetensors file with the course's
    /// names. Files are recognized by their first bytes. `sizes` matters for the course's files
    /// only.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if a file is damaged or tensors are missing,
    /// unexpected or misshapen, and `ERR_UNSUPPORTED` naming what the engine cannot compute.
    pub fn open(path: &Path, sizes: &CourseSizes) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NotFound { what: "model", path: path.to_path_buf() });
        }
        let mut source = if path.is_dir() {
            Self::of_folder(path)?
        } else {
            match first_bytes(path)? {
                [b'G', b'G', b'U', b'F', ..] => Self::of_gguf(path)?,
                [b'P', b'K', 3, 4, ..] => Self::of_course(path, Format::Torch, sizes)?,
                [_, _, _, _, _, _, _, 0] => Self::of_course(path, Format::Safetensors, sizes)?,
                _ => {
                    return Err(Error::InvalidModel(format!(
                        "{} is not a GGUF, PyTorch or safetensors file; check the path",
                        path.display()
                    )));
                }
            }
        };
        source.match_tensors(path)?;
        Ok(source)
    }

    fn of_folder(path: &Path) -> Result<Self> {
        let config_path = path.join("config.json");
        if !config_path.exists() {
            return Err(Error::InvalidModel(format!(
                "{} is not a model: it has no config.json; name a run, or a Hugging Face model \
                 folder",
                path.display()
            )));
        }
        let (mut config, architecture) = hugging_face::config_of(&config_path)?;
        let mut tensors = safetensors::open_folder(path)?;
        // Some models store a copy of a tied output layer. Others leave it out, though their config
        // does not say that it is tied.
        if tensors.get("lm_head.weight").is_none() {
            config.tie_embeddings = true;
        }
        let is_tied = config.tie_embeddings;
        tensors.retain(|name| {
            let is_copy = is_tied && name == "lm_head.weight";
            !is_copy && !name.ends_with("rotary_emb.inv_freq")
        });
        let has_tokenizer =
            ["tokenizer.json", "vocab.json"].iter().any(|name| path.join(name).exists());
        Ok(Self {
            format: Format::HuggingFace,
            architecture,
            config,
            companions: companions::read_companions(path)?,
            naming: Naming::HuggingFace,
            tensors,
            tokenizer: has_tokenizer.then(|| TokenizerSource::Folder(path.to_path_buf())),
        })
    }

    fn of_gguf(path: &Path) -> Result<Self> {
        let mut gguf = GgufFile::open(path)?;
        let (config, architecture, naming) = gguf::config_of(&mut gguf)?;
        let companions = companions::companions_of_gguf(&gguf, config.max_seq_length);
        let tokenizer = vocab_of(&gguf)?.map(Box::new).map(TokenizerSource::Vocab);
        let mut tensors = gguf.tensors;
        tensors.retain(|name| name != gguf::ROPE_FACTORS);
        Ok(Self {
            format: Format::Gguf,
            architecture,
            config,
            companions,
            naming,
            tensors,
            tokenizer,
        })
    }

    fn of_course(path: &Path, format: Format, sizes: &CourseSizes) -> Result<Self> {
        let mut tensors = if format == Format::Torch {
            torch::open(path)?
        } else {
            let mut files = TensorFiles::default();
            safetensors::open_file(&mut files, path)?;
            files
        };
        let config = course::config_of(path, &mut tensors, sizes)?;
        Ok(Self {
            format,
            architecture: "course".to_owned(),
            config,
            companions: Companions::new(),
            naming: Naming::Course,
            tensors,
            tokenizer: None,
        })
    }

    /// Checks that the files have exactly the tensors of the model, in the right shapes. The error
    /// lists the differences.
    fn match_tensors(&mut self, path: &Path) -> Result<()> {
        let layout = Layout::new(&self.config);
        let mut wrong = Vec::new();
        let mut unknown: std::collections::BTreeSet<&String> =
            self.tensors.entries().keys().collect();
        for parameter in &layout.parameters {
            let Some(name) = self.naming.name_of(parameter) else { continue };
            let shape = self.naming.shape_of(parameter);
            match self.tensors.get(&name) {
                None => wrong.push(format!("{name} is missing")),
                Some(entry) if entry.shape != shape => {
                    wrong.push(format!("{name} has shape {:?}, not {shape:?}", entry.shape));
                }
                Some(_) => {}
            }
            unknown.remove(&name);
        }
        wrong.extend(unknown.into_iter().map(|name| format!("{name} is unexpected")));
        if wrong.is_empty() {
            return Ok(());
        }
        let more = wrong.len().saturating_sub(MOST_LISTED);
        wrong.truncate(MOST_LISTED);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        Err(Error::InvalidModel(format!(
            "the tensors of {} do not match its configuration: {}",
            path.display(),
            wrong.join("; ")
        )))
    }

    /// Reads the weights into a model of this configuration, whose `max_seq_length` may differ.
    /// Memory holds one tensor at a time. Reports the bytes of the weights as f32.
    ///
    /// # Errors
    /// Returns `ERR_CHECKPOINT_MISMATCH` if the model has other sizes, before any weight is
    /// replaced; `ERR_DEVICE`, I/O errors and those of `progress`, which may leave the weights
    /// partly replaced.
    pub fn read_into(
        &mut self,
        model: &mut Transformer,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let config = model.config().clone();
        if (ModelConfig { max_seq_length: self.config.max_seq_length, ..config.clone() })
            != self.config
        {
            return Err(Error::CheckpointMismatch("the model has different sizes".to_owned()));
        }
        let (naming, tensors) = (self.naming, &mut self.tensors);
        let mut read = Counted::new(f32_bytes(model.num_parameters()), progress);
        model.set_weights_in_memory(|parameter| {
            let name = naming.name_of(parameter).unwrap_or_default();
            let values = naming.to_memory(&config, parameter, tensors.read(&name)?);
            read.add(f32_bytes(parameter.range.len()))?;
            Ok(values)
        })
    }

    /// Opens the tokenizer, if the model has one.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_TOKENIZER` for a tokenizer that cannot be reproduced exactly.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        match &self.tokenizer {
            None => Ok(None),
            Some(TokenizerSource::Folder(folder)) => {
                with_bos(Tokenizer::open(folder)?, &self.companions).map(Some)
            }
            Some(TokenizerSource::Vocab(vocab)) => Tokenizer::from_gguf(vocab).map(Some),
        }
    }
}

/// Most differences that an error lists.
const MOST_LISTED: usize = 8;

fn first_bytes(path: &Path) -> Result<[u8; 8]> {
    let (file, _) = open_regular(path, Error::InvalidModel)?;
    let mut bytes = Vec::new();
    file.take(8).read_to_end(&mut bytes).map_err(|error| Error::io(IoAction::Read, path, error))?;
    Ok(bytes.try_into().unwrap_or([0xFF; 8]))
}

/// Puts the BOS before texts if `tokenizer_config.json` asks for it and tokenizer.json does not.
fn with_bos(tokenizer: Tokenizer, companions: &Companions) -> Result<Tokenizer> {
    let bos = SpecialIds::of(companions, Some(&tokenizer)).bos;
    match (companions::adds_bos(companions), tokenizer.bos_of_template(), bos) {
        (Some(true), None, Some(bos)) => {
            let after = tokenizer.template().after.clone();
            tokenizer.with_template(Template { before: vec![bos], after })
        }
        _ => Ok(tokenizer),
    }
}

/// Returns the tokenizer's data in the metadata, or `None` if the file has no tokenizer.
fn vocab_of(gguf: &GgufFile) -> Result<Option<GgufVocab>> {
    let Some(model) = gguf.text("tokenizer.ggml.model") else { return Ok(None) };
    if model != "gpt2" {
        return Err(Error::Unsupported(format!(
            "{}: tokenizer model {model:?} is not supported; use a file with a byte-level BPE \
             tokenizer (gpt2)",
            gguf.tensors.file(0).0.display()
        )));
    }
    let texts = |name: &str| gguf.texts(&format!("tokenizer.ggml.{name}")).unwrap_or_default();
    let id = |name: &str| {
        let id = gguf.integer(&format!("tokenizer.ggml.{name}_token_id"))?;
        u32::try_from(id).ok()
    };
    let flag = |name: &str| gguf.boolean(&format!("tokenizer.ggml.{name}"));
    let types = gguf.integers("tokenizer.ggml.token_type").unwrap_or_default();
    Ok(Some(GgufVocab {
        pre: gguf.text("tokenizer.ggml.pre").unwrap_or("default").to_owned(),
        tokens: texts("tokens").to_vec(),
        token_types: types.iter().map(|kind| *kind as i32).collect(),
        merges: texts("merges").to_vec(),
        bos: id("bos"),
        eos: id("eos"),
        padding: id("padding"),
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
    }))
}
