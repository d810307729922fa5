//! Replaces folders atomically: they are written next to their place, synced, then renamed.
//!
//! An error leaves nothing behind, neither the temporary folder nor parents created for it. A
//! killed process leaves a hidden temporary folder, which the next attempt at the same place
//! removes or adopts.
//!
//! ```text
//! .<name>.<pid>-<n>.new       being created, until its lock is held
//! .<name>.<pid>-<n>.partial   being written; its lock is held while the process lives
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::IoAction;
use crate::{Error, Result};

mod dead;
mod files;
mod replace;

pub(crate) use dead::{dead_folders, remove_dead};
pub use files::{sync_files, sync_folder, write_file_atomic, write_synced};
use replace::{remove, replace};

/// The file that the writing process keeps locked. If it is not locked, the process is dead.
const LOCK: &str = ".lock";

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct StagedFolder {
    folder: PathBuf,
    lock: Option<File>,
    /// Parent folders that were created for it, outermost first.
    made: Vec<PathBuf>,
}

impl StagedFolder {
    /// Creates a temporary folder in `parent`, which it creates if needed, for the contents of the
    /// future folder `name`. Removes what dead processes left for that name.
    ///
    /// # Errors
    /// Returns `ERR_NOT_WRITABLE`, `ERR_DISK_FULL` and other I/O errors.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        Self::adopt_or_new(parent, name, |_| false).map(|(staged, _)| staged)
    }

    /// Adopts a temporary folder that a dead process left for the same name, if one is `wanted`, or
    /// else creates one. Returns whether it was adopted. Removes all other folders of dead
    /// processes.
    ///
    /// # Errors
    /// As `new`.
    pub fn adopt_or_new(
        parent: &Path,
        name: &str,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<(Self, bool)> {
        let made = make_parents(parent)?;
        let mut staged = Self { folder: PathBuf::new(), lock: None, made };
        for (folder, lock) in dead_folders(parent, name) {
            if lock.is_some() && wanted(&folder) && staged.lock.is_none() {
                (staged.folder, staged.lock) = (folder, lock);
            } else {
                dead::dispose(&folder, &parent.join(name));
            }
        }
        if staged.lock.is_some() {
            return Ok((staged, true));
        }
        let pid = std::process::id();
        for attempt in 0..1_000 {
            let id = parent.join(format!(".{name}.{pid}-{attempt}"));
            if let Some((folder, lock)) = create_locked(&id)? {
                (staged.folder, staged.lock) = (folder, Some(lock));
                return Ok((staged, false));
            }
        }
        Err(Error::Internal(format!("no free name for a temporary folder in {}", parent.display())))
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Moves the folder to `target`, replacing what is there in one step, and syncs the change to
    /// disk.
    ///
    /// # Errors
    /// Returns I/O errors; `target` is unchanged then.
    pub fn commit(mut self, target: &Path) -> Result<()> {
        sync_folder(&self.folder)?;
        let parent = self.folder.parent().unwrap_or(Path::new("."));
        let trash = with_suffix(&self.folder.with_extension(""), "-old.partial");
        let replacement = replace(&self.folder, target, &trash)
            .map_err(|error| Error::io(IoAction::Write, target, error))?;
        if let Err(error) = sync_folder(parent).and_then(|()| self.sync_parents()) {
            replacement.undo();
            return Err(error);
        }
        // The lock goes only now. Earlier, another process could have taken the folder for a dead
        // one's.
        let _ = std::fs::remove_file(target.join(LOCK));
        replacement.keep();
        self.folder.clear();
        self.made.clear();
        Ok(())
    }

    /// Replaces each of the entries `names` of `target` by the one in this folder, and removes
    /// those that this folder lacks.
    ///
    /// # Errors
    /// Returns I/O errors, after which some entries may have been replaced.
    pub fn commit_entries(mut self, target: &Path, names: &[&str]) -> Result<()> {
        for name in names {
            let (from, to) = (self.folder.join(name), target.join(name));
            let trash = self.folder.join(format!(".old-{name}"));
            let written = if from.exists() {
                replace(&from, &to, &trash).map(drop)
            } else if to.exists() {
                std::fs::rename(&to, &trash)
            } else {
                Ok(())
            };
            written.map_err(|error| Error::io(IoAction::Write, &to, error))?;
        }
        sync_folder(target)?;
        self.sync_parents()?;
        self.made.clear();
        // Removes the folder, and the replaced entries in it. The sync keeps a power cut from
        // bringing it back.
        drop(self);
        sync_folder(target)
    }

    /// Syncs the parents that were created for the folder.
    pub(crate) fn sync_parents(&self) -> Result<()> {
        let above = self.made.iter().filter_map(|made| made.parent());
        above.filter(|folder| !folder.as_os_str().is_empty()).try_for_each(sync_folder)
    }

    /// Leaves the folder behind, as a dead process would, for `adopt_or_new`.
    pub fn keep(mut self) {
        self.folder.clear();
        self.made.clear();
    }

    /// Removes the folder, but not the parents created for it, to which its contents have been
    /// moved.
    pub fn done(mut self) {
        self.made.clear();
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            remove(&self.folder);
        }
        for parent in self.made.iter().rev() {
            // Fails if another process has put something there.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Creates `parent` and its missing ancestors. Returns those that it created, outermost first.
fn make_parents(parent: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<_> = parent
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .map(Path::to_path_buf)
        .collect();
    let mut made = Vec::new();
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(&folder) {
            Ok(()) => made.push(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                made.iter().rev().for_each(|folder| drop(std::fs::remove_dir(folder)));
                return Err(Error::io(IoAction::Create, folder, error));
            }
        }
    }
    Ok(made)
}

/// Creates the folder `<id>.partial` with a lock that this process holds. Until then the folder is
/// named `<id>.new`, so that no process sees `.partial` without its lock. Returns `None` if the
/// name is taken.
fn create_locked(id: &Path) -> Result<Option<(PathBuf, File)>> {
    let (new, folder) = (with_suffix(id, ".new"), with_suffix(id, ".partial"));
    match std::fs::create_dir(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(Error::io(IoAction::Create, new, error)),
    }
    let path = new.join(LOCK);
    let lock = match File::create(&path) {
        Ok(lock) => lock,
        // Another process took the folder for a dead one's and removed it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            remove(&new);
            return Err(Error::io(IoAction::Create, &path, error));
        }
    };
    // Where locks are not supported, a folder goes without, and those of dead processes are not
    // removed.
    if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) || !dead::is_at(&lock, &path) {
        return Ok(None);
    }
    if folder.exists() || std::fs::rename(&new, &folder).is_err() {
        remove(&new);
        return Ok(None);
    }
    Ok(Some((folder, lock)))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Folder, names};

    #[test]
    fn commit_replaces_the_target() {
        let root = Folder::new();
        let target = root.path().join("a/b/store");
        for content in ["first", "second"] {
            let staged = StagedFolder::new(&root.path().join("a/b"), "store").unwrap();
            std::fs::write(staged.path().join("file"), content).unwrap();
            staged.commit(&target).unwrap();
            assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), content);
            assert_eq!(names(&root.path().join("a/b")), ["store"]);
            assert_eq!(names(&target), ["file"]);
        }
    }

    #[test]
    fn an_uncommitted_folder_is_removed_with_its_new_parents() {
        let root = Folder::new();
        let staged = StagedFolder::new(&root.path().join("a/b"), "store").unwrap();
        std::fs::write(staged.path().join("file"), "half").unwrap();
        drop(staged);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn only_folders_of_dead_processes_are_removed() {
        let root = Folder::new();
        let dead = root.path().join(".store.99-0.partial");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        let living = StagedFolder::new(root.path(), "store").unwrap();
        assert!(!dead.exists());
        let second = StagedFolder::new(root.path(), "store").unwrap();
        assert!(living.path().exists() && second.path().exists());
    }

    #[test]
    fn folders_for_a_longer_name_are_left_alone() {
        let root = Folder::new();
        let other = root.path().join(".store.x.99999999-0.partial");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join(LOCK), "").unwrap();
        let (_staged, adopted) =
            StagedFolder::adopt_or_new(root.path(), "store", |_| true).unwrap();
        assert!(!adopted && other.exists());
        remove_dead(root.path(), "store.x");
        assert!(!other.exists());
    }

    #[test]
    fn folders_of_dead_processes_and_kept_folders_can_be_adopted() {
        let root = Folder::new();
        let dead = root.path().join(".store.99999999-0.partial");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        // Killed before it created its lock.
        std::fs::create_dir(root.path().join(".store.99999998-0.partial")).unwrap();
        let (staged, adopted) = StagedFolder::adopt_or_new(root.path(), "store", |_| true).unwrap();
        assert!(adopted && staged.path() == dead);
        assert_eq!(names(root.path()), [".store.99999999-0.partial"]);
        let (other, adopted) = StagedFolder::adopt_or_new(root.path(), "store", |_| true).unwrap();
        assert!(!adopted && other.path() != dead, "it is in use");
        drop(other);
        staged.keep();
        let (staged, adopted) = StagedFolder::adopt_or_new(root.path(), "store", |_| true).unwrap();
        assert!(adopted && staged.path() == dead);
        drop(staged);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn writers_of_one_place_at_once_all_succeed_and_leave_one_whole_folder() {
        let root = Folder::new();
        let target = root.path().join("store");
        let written = |writer: usize| format!("{writer}").repeat(1_000);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (target, written) = (&target, &written);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let parent = target.parent().unwrap();
                        let staged = StagedFolder::new(parent, "store").unwrap();
                        for file in ["a", "b"] {
                            std::fs::write(staged.path().join(file), written(writer)).unwrap();
                        }
                        staged.commit(target).unwrap();
                        write_file_atomic(&parent.join("latest"), b"store").unwrap();
                    }
                });
            }
        });
        assert_eq!(names(root.path()), ["latest", "store"]);
        let read = |file| std::fs::read_to_string(target.join(file)).unwrap();
        assert!(read("a") == read("b") && (0..4).any(|writer| read("a") == written(writer)));
    }

    #[test]
    fn an_entry_that_a_dead_process_moved_aside_is_moved_back() {
        let root = Folder::new();
        let aside = root.path().join(".store.99999999-0-old.partial");
        std::fs::create_dir(&aside).unwrap();
        std::fs::write(aside.join("file"), "old").unwrap();
        drop(StagedFolder::new(root.path(), "store").unwrap());
        assert_eq!(std::fs::read_to_string(root.path().join("store/file")).unwrap(), "old");
        assert_eq!(names(root.path()), ["store"]);
    }

    #[test]
    fn a_file_is_replaced_completely_or_not_at_all() {
        let root = Folder::new();
        let path = root.path().join("config.json");
        // The temporary file of a killed process is overwritten.
        std::fs::write(root.path().join("config.json.tmp"), "half").unwrap();
        for content in ["a longer first text", "second"] {
            write_file_atomic(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(root.path()), ["config.json"]);
        }
        std::fs::create_dir(root.path().join("folder")).unwrap();
        let error = write_file_atomic(&root.path().join("folder"), b"text").unwrap_err();
        assert_eq!(error.code(), "ERR_IO");
        assert_eq!(names(root.path()), ["config.json", "folder"]);
    }

    #[test]
    fn commit_entries_replaces_and_removes_the_named_entries() {
        let root = Folder::new();
        for (name, text) in [("train", "old"), ("valid", "old"), ("other", "kept")] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("file"), text).unwrap();
        }
        let staged = StagedFolder::new(root.path(), "data").unwrap();
        std::fs::create_dir(staged.path().join("train")).unwrap();
        std::fs::write(staged.path().join("train/file"), "new").unwrap();
        staged.commit_entries(root.path(), &["train", "valid"]).unwrap();
        assert_eq!(names(root.path()), ["other", "train"]);
        assert_eq!(std::fs::read_to_string(root.path().join("train/file")).unwrap(), "new");
    }
}
