//! Where encoded text goes: a folder of tokenizer, `train_chunks` and `valid_chunks`, or one `_chunks` store.

use std::path::{Path, PathBuf};

use super::encode::EncodeOptions;
use super::files::chunk_number;
use super::metadata;
use super::staging::StagedFolder;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

const TOKENIZER: &str = "tokenizer";
const TRAIN: &str = "train_chunks";
const VALID: &str = "valid_chunks";
const TOKENIZER_FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.json"];

/// One such place.
pub(super) struct Destination<'a> {
    out: &'a Path,
    name: String,
    store: bool,
}

impl<'a> Destination<'a> {
    pub fn new(out: &'a Path) -> Result<Self> {
        let name = match out.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None if out.is_dir() => "data".to_owned(),
            None => return Err(Error::argument(format!("{} is no name for a folder", out.display()))),
        };
        Ok(Self { out, store: name.ends_with("_chunks"), name })
    }

    /// Whether it is one store.
    pub fn is_store(&self) -> bool {
        self.store
    }

    /// The folder of the training tokens below `root`, the place itself or a temporary one.
    pub fn train(&self, root: &Path) -> PathBuf {
        if self.store { root.to_path_buf() } else { root.join(TRAIN) }
    }

    /// The folder of the validation tokens below `root`.
    pub fn valid(root: &Path) -> PathBuf {
        root.join(VALID)
    }

    /// What `store.json` says of the tokenizer's place, as seen from the store.
    pub fn tokenizer_path(&self, options: &EncodeOptions) -> Option<String> {
        if !self.store {
            return Some(format!("../{TOKENIZER}"));
        }
        let path = options.tokenizer_path.as_ref()?;
        Some(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned())
    }

    /// Refuses to replace anything but stores and tokenizers.
    pub fn check_replaceable(&self, tokenizer: &Tokenizer) -> Result<()> {
        let store_file = |name: &str| name == metadata::FILE_NAME || chunk_number(name).is_some();
        if self.store {
            return holds_only(self.out, "a token store", store_file);
        }
        if self.out.exists() && !self.out.is_dir() {
            return Err(Error::argument(format!("{} is a file; choose another folder", self.out.display())));
        }
        for name in [TRAIN, VALID] {
            holds_only(&self.out.join(name), "a token store", store_file)?;
        }
        if self.has_tokenizer(tokenizer) {
            return Ok(());
        }
        holds_only(&self.out.join(TOKENIZER), "a tokenizer", |name| TOKENIZER_FILES.contains(&name))
    }

    /// Whether this tokenizer is there already.
    fn has_tokenizer(&self, tokenizer: &Tokenizer) -> bool {
        Tokenizer::open(self.out.join(TOKENIZER)).is_ok_and(|found| found.hash() == tokenizer.hash())
    }

    /// A temporary folder on the same file system.
    pub fn stage(&self) -> Result<StagedFolder> {
        if !self.store && self.out.is_dir() {
            return StagedFolder::new(self.out, &self.name);
        }
        let parent = self.out.parent().filter(|parent| !parent.as_os_str().is_empty());
        StagedFolder::new(parent.unwrap_or(Path::new(".")), &self.name)
    }

    /// Puts the tokenizer beside the stores, if they have a folder of their own and it is not there yet.
    pub fn save_tokenizer(&self, staged: &Path, tokenizer: &Tokenizer) -> Result<()> {
        if self.store || self.has_tokenizer(tokenizer) {
            return Ok(());
        }
        tokenizer.save(staged.join(TOKENIZER))
    }

    /// Puts everything in its place.
    pub fn commit(&self, staged: StagedFolder) -> Result<()> {
        if self.store || !self.out.is_dir() {
            return staged.commit(self.out);
        }
        let keep_tokenizer = !staged.path().join(TOKENIZER).exists();
        staged.commit_entries(self.out, &[TRAIN, VALID, TOKENIZER][..if keep_tokenizer { 2 } else { 3 }])
    }
}

/// Checks that `folder`, if it is there, is a folder with files named so and nothing else.
fn holds_only(folder: &Path, what: &str, named: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            let message = format!("{} is a file where {what} is to be written", folder.display());
            return Err(Error::argument(message));
        }
        Err(error) => return Err(Error::io("cannot read", folder, error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| Error::io("cannot read", folder, error))?.file_name();
        if !name.to_str().is_some_and(&named) {
            return Err(Error::argument(format!(
                "{} holds {}, which is no part of {what}, and would be replaced; choose another folder",
                folder.display(),
                name.display()
            )));
        }
    }
    Ok(())
}
