//! Where encoded text goes: a folder of tokenizer, `train_chunks` and `valid_chunks`, or one `_chunks` store.

use std::path::{Path, PathBuf};

use super::files::chunk_number;
use super::metadata;
use crate::staging::{StagedFolder, remove_dead, sync_folder};
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
            None => {
                return Err(Error::argument(format!("{} is no name for a folder", out.display())));
            }
        };
        Ok(Self { out, store: name.ends_with("_chunks"), name })
    }

    /// Whether it is one store.
    pub fn is_store(&self) -> bool {
        self.store
    }

    /// The place itself.
    pub fn out(&self) -> &Path {
        self.out
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
    pub fn tokenizer_path(&self, given: Option<&Path>) -> Option<String> {
        if !self.store {
            return Some(format!("../{TOKENIZER}"));
        }
        let path = given?;
        Some(
            std::fs::canonicalize(path)
                .unwrap_or_else(|_| path.to_path_buf())
                .to_string_lossy()
                .into_owned(),
        )
    }

    /// Refuses to replace anything but stores and tokenizers.
    pub fn check_replaceable(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        let store_file = |name: &str| name == metadata::FILE_NAME || chunk_number(name).is_some();
        if self.store {
            return holds_only(self.out, "a token store", store_file);
        }
        if self.out.exists() && !self.out.is_dir() {
            return Err(Error::argument(format!(
                "{} is a file; choose another folder",
                self.out.display()
            )));
        }
        for name in [TRAIN, VALID] {
            holds_only(&self.out.join(name), "a token store", store_file)?;
        }
        if tokenizer.is_none_or(|tokenizer| self.has_tokenizer(tokenizer)) {
            return Ok(());
        }
        holds_only(&self.out.join(TOKENIZER), "a tokenizer", |name| TOKENIZER_FILES.contains(&name))
    }

    /// Whether this tokenizer is there already.
    fn has_tokenizer(&self, tokenizer: &Tokenizer) -> bool {
        let folder = self.out.join(TOKENIZER);
        // Opening it takes as long as encoding 25 MB.
        tokenizer.is_saved(&folder)
            || Tokenizer::open(folder).is_ok_and(|found| found.hash() == tokenizer.hash())
    }

    /// A temporary folder on the same file system, or a dead process's that is `wanted`; says whether it is one.
    pub fn stage(&self, wanted: impl Fn(&Path) -> bool) -> Result<(StagedFolder, bool)> {
        if !self.store && self.out.is_dir() {
            // A process that died just after the folder got its name left its own beside it.
            remove_dead(self.parent(), &self.name);
            return StagedFolder::adopt_or_new(self.out, &self.name, wanted);
        }
        StagedFolder::adopt_or_new(self.parent(), &self.name, wanted)
    }

    fn parent(&self) -> &Path {
        self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Puts the tokenizer beside the stores below `root`, if they have a folder of their own and it is not there yet.
    pub fn save_tokenizer(&self, root: &Path, tokenizer: &Tokenizer) -> Result<()> {
        if self.store || self.has_tokenizer(tokenizer) {
            return Ok(());
        }
        tokenizer.save(root.join(TOKENIZER))
    }

    /// Moves what was written below `root`, a folder in `staged`, to its place. What was there is moved out of the way
    /// first, then `moving` is called, then the new moves in, the training store last: whoever looks in between finds no
    /// training store, never one that does not belong to the rest.
    ///
    /// `begun` says that an attempt before has called `moving`.
    pub fn install(
        &self,
        staged: StagedFolder,
        root: &Path,
        begun: bool,
        moving: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let entries = self.entries(root);
        let old = staged.path().join("old");
        let mut moved = Moved::default();
        if !begun {
            std::fs::create_dir_all(&old)
                .map_err(|error| Error::io("cannot create", &old, error))?;
            for (name, from, to) in &entries {
                // A tokenizer that was not written is the one that is there.
                if to.exists() && (from.exists() || *name != TOKENIZER) {
                    moved.rename(to, &old.join(name))?;
                }
            }
            moving()?;
        }
        for (_, from, to) in &entries {
            if from.exists() {
                moved.rename(from, to)?;
            }
        }
        moved.stays();
        sync_folder(self.out)?;
        sync_folder(self.parent())?;
        staged.done();
        Ok(())
    }

    /// What is moved: name, from, to.
    fn entries(&self, root: &Path) -> Vec<(&str, PathBuf, PathBuf)> {
        if self.store || !self.out.is_dir() {
            return vec![(TRAIN, root.to_path_buf(), self.out.to_path_buf())];
        }
        [TOKENIZER, VALID, TRAIN].map(|name| (name, root.join(name), self.out.join(name))).into()
    }
}

/// Renames that are taken back unless all of them succeed.
#[derive(Default)]
struct Moved(Vec<(PathBuf, PathBuf)>);

impl Moved {
    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|error| Error::io("cannot write", to, error))?;
        self.0.push((from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn stays(&mut self) {
        self.0.clear();
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (from, to) in self.0.iter().rev() {
            let _ = std::fs::rename(to, from);
        }
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
