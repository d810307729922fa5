//! The destination of encoded text: a folder with `tokenizer`, `train_chunks` and `valid_chunks`,
//! or a single store if its name ends in `_chunks`.

use std::path::{Path, PathBuf};

use super::files::chunk_number;
use super::metadata;
use crate::error::IoAction;
use crate::staging::{StagedFolder, remove_dead, sync_folder};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

const TOKENIZER: &str = "tokenizer";
const TRAIN: &str = "train_chunks";
const VALID: &str = "valid_chunks";
/// The folder within the temporary folder to which the replaced files are moved.
const OLD: &str = "old";
const TOKENIZER_FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.json"];

pub(super) struct Destination<'a> {
    out: &'a Path,
    name: String,
    is_store: bool,
}

impl<'a> Destination<'a> {
    pub fn new(out: &'a Path) -> Result<Self> {
        let name = match out.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None if out.is_dir() => "data".to_owned(),
            None => {
                return Err(Error::argument(format!(
                    "{} is not the name of a folder; choose another",
                    out.display()
                )));
            }
        };
        Ok(Self { out, is_store: name.ends_with("_chunks"), name })
    }

    pub fn out(&self) -> &Path {
        self.out
    }

    /// Returns an error if the destination cannot hold a validation store.
    pub fn check_holds_two(&self) -> Result<()> {
        if !self.is_store {
            return Ok(());
        }
        Err(Error::argument(format!(
            "{} is a single store; to split, choose a folder whose name does not end in _chunks",
            self.out.display()
        )))
    }

    /// Returns the folder of the training tokens below `root`, which is the destination itself or a
    /// temporary folder.
    pub fn train(&self, root: &Path) -> PathBuf {
        if self.is_store { root.to_path_buf() } else { root.join(TRAIN) }
    }

    /// Returns the folder of the validation tokens below `root`.
    pub fn valid(root: &Path) -> PathBuf {
        root.join(VALID)
    }

    /// Returns the `tokenizer_path` for `store.json`, relative to the store if the tokenizer is
    /// saved beside it. `given` is the path from which the tokenizer was opened.
    pub fn tokenizer_path(&self, given: Option<&Path>) -> Option<String> {
        if !self.is_store {
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

    /// Returns an error if anything other than stores and tokenizers would be replaced.
    pub fn check_replaceable(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        let store_file = |name: &str| name == metadata::FILE_NAME || chunk_number(name).is_some();
        if self.is_store {
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

    /// Returns whether this tokenizer is already in the folder.
    fn has_tokenizer(&self, tokenizer: &Tokenizer) -> bool {
        let folder = self.out.join(TOKENIZER);
        // Compare the files first, since opening a tokenizer takes as long as encoding 25 MB.
        tokenizer.is_saved(&folder)
            || Tokenizer::open(folder).is_ok_and(|found| found.hash() == tokenizer.hash())
    }

    /// Creates a temporary folder on the same file system, or adopts one that a dead process left,
    /// if it is `wanted`. Returns whether it was adopted.
    pub fn stage(&self, wanted: impl Fn(&Path) -> bool) -> Result<(StagedFolder, bool)> {
        // Files that a killed process moved away must not be removed with its folder.
        let wanted = |folder: &Path| {
            let is_wanted = wanted(folder);
            if !is_wanted {
                self.restore(folder);
            }
            is_wanted
        };
        if !self.is_store && self.out.is_dir() {
            // A process that was killed just after creating `out` left its temporary folder beside
            // it.
            remove_dead(self.parent(), &self.name);
            return StagedFolder::adopt_or_new(self.out, &self.name, wanted);
        }
        StagedFolder::adopt_or_new(self.parent(), &self.name, wanted)
    }

    /// Undoes an `install` that was killed before the training store was in place, by moving the
    /// old files in `staged` back.
    pub fn restore(&self, staged: &Path) {
        let old = staged.join(OLD);
        let entries = self.entries(staged);
        let moved = old.join(TRAIN).exists();
        if moved && entries.iter().any(|entry| entry.name == TRAIN && entry.to.exists()) {
            return;
        }
        for Entry { name, to, .. } in entries {
            let from = old.join(name);
            if to.exists() && moved && (from.exists() || name == VALID) {
                let _ = std::fs::rename(&to, staged.join(format!("undone-{name}")));
            }
            if from.exists() && !to.exists() {
                let _ = std::fs::rename(from, to);
            }
        }
    }

    fn parent(&self) -> &Path {
        self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Saves the tokenizer beside the stores below `root`, unless the destination already has it or
    /// is a single store.
    pub fn save_tokenizer(&self, root: &Path, tokenizer: &Tokenizer) -> Result<()> {
        if self.is_store || self.has_tokenizer(tokenizer) {
            return Ok(());
        }
        tokenizer.save(root.join(TOKENIZER))
    }

    /// Moves what was written below `root`, a folder in `staged`, to the destination.
    ///
    /// ```text
    /// move the old files away; call `moving`; move the new files in, the training store last
    /// ```
    ///
    /// Meanwhile a reader may find no training store, but never one that does not match the other
    /// files. `resumed` says that an earlier attempt has already called `moving`. After an error
    /// the old files are restored, or, if `resumed`, everything is kept for another attempt.
    pub fn install(
        &self,
        staged: StagedFolder,
        root: &Path,
        resumed: bool,
        moving: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let entries = self.entries(root);
        let old = staged.path().join(OLD);
        let mut renames = Renames::default();
        if !resumed {
            std::fs::create_dir_all(&old)
                .map_err(|error| Error::io(IoAction::Create, &old, error))?;
            for Entry { name, from, to } in &entries {
                // If no tokenizer was written, the old one stays, since it is the same.
                if to.exists() && (from.exists() || *name != TOKENIZER) {
                    renames.rename(to, &old.join(name))?;
                }
            }
            // The journal must not record the moves before they are on disk.
            sync_folder(&old)?;
            sync_folder(if self.is_whole() { self.parent() } else { self.out })?;
            moving()?;
        }
        for Entry { from, to, .. } in &entries {
            if from.exists()
                && let Err(error) = renames.rename(from, to)
            {
                if resumed {
                    // The folder holds the old files, and the new ones, which can still be
                    // installed.
                    renames.keep();
                    staged.keep();
                }
                return Err(error);
            }
        }
        renames.keep();
        sync_folder(self.out)?;
        sync_folder(self.parent())?;
        staged.sync_parents()?;
        staged.done();
        Ok(())
    }

    /// Returns whether a single folder becomes the destination, rather than several moving into it.
    fn is_whole(&self) -> bool {
        self.is_store || !self.out.is_dir()
    }

    fn entries(&self, root: &Path) -> Vec<Entry> {
        if self.is_whole() {
            let (from, to) = (root.to_path_buf(), self.out.to_path_buf());
            return vec![Entry { name: TRAIN, from, to }];
        }
        let entry = |name| Entry { name, from: root.join(name), to: self.out.join(name) };
        [TOKENIZER, VALID, TRAIN].map(entry).into()
    }
}

/// A folder to be moved into place.
struct Entry {
    name: &'static str,
    from: PathBuf,
    to: PathBuf,
}

/// Renames that are undone unless all of them succeed.
#[derive(Default)]
struct Renames(Vec<(PathBuf, PathBuf)>);

impl Renames {
    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|error| Error::io(IoAction::Write, to, error))?;
        self.0.push((from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Renames {
    fn drop(&mut self) {
        for (from, to) in self.0.iter().rev() {
            let _ = std::fs::rename(to, from);
        }
    }
}

/// Returns an error if `folder` exists and holds an entry whose name `is_name` rejects.
fn holds_only(folder: &Path, what: &str, is_name: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(Error::argument(format!(
                "{} is a file where {what} is to be written; choose another folder",
                folder.display()
            )));
        }
        Err(error) => return Err(Error::io(IoAction::Read, folder, error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| Error::io(IoAction::Read, folder, error))?.file_name();
        if !name.to_str().is_some_and(&is_name) {
            return Err(Error::argument(format!(
                "{} would be replaced, but holds {}, which is not part of {what}; \
                 choose another folder",
                folder.display(),
                name.display()
            )));
        }
    }
    Ok(())
}
