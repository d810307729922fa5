//! Atomic replacement of folders: written beside their place, synced, then renamed.
//!
//! An error leaves nothing behind, neither the temporary folder nor parents created for it. A
//! killed process leaves a hidden temporary folder, which the next attempt at the same place
//! removes or adopts.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::IoAction;
use crate::{Error, Result};

/// The file that the writing process keeps locked. Without a lock, the process is dead.
const LOCK: &str = ".lock";

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct StagedFolder {
    folder: PathBuf,
    lock: Option<File>,
    /// Parents that were created for it, outermost first.
    made: Vec<PathBuf>,
}

impl StagedFolder {
    /// Creates a temporary folder in `parent` for the contents of the future folder `name`.
    ///
    /// # Errors
    /// Returns `ERR_NOT_WRITABLE`, `ERR_DISK_FULL` and other I/O errors.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        Self::adopt_or_new(parent, name, |_| false).map(|(staged, _)| staged)
    }

    /// Adopts the temporary folder of a dead process for the same name that is `wanted`, or creates
    /// one. Returns whether it was adopted; all other folders of dead processes are removed.
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
            if staged.lock.is_none() && lock.is_some() && wanted(&folder) {
                (staged.folder, staged.lock) = (folder, lock);
            } else {
                let _ = std::fs::remove_dir_all(folder);
            }
        }
        if staged.lock.is_some() {
            return Ok((staged, true));
        }
        let pid = std::process::id();
        for attempt in 0..1_000 {
            let folder = parent.join(format!(".{name}.{pid}-{attempt}.partial"));
            match std::fs::create_dir(&folder) {
                Ok(()) => {
                    staged.folder = folder;
                    let path = staged.folder.join(LOCK);
                    let lock = File::create(&path)
                        .map_err(|error| Error::io(IoAction::Create, &path, error))?;
                    // Where locks are not supported, folders of dead processes are not removed.
                    let _ = lock.try_lock();
                    staged.lock = Some(lock);
                    return Ok((staged, false));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(IoAction::Create, folder, error)),
            }
        }
        Err(Error::Internal(format!("no free name for a temporary folder in {}", parent.display())))
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Renames the folder to `target`, replacing what is there.
    ///
    /// # Errors
    /// Returns I/O errors; `target` is unchanged then.
    pub fn commit(mut self, target: &Path) -> Result<()> {
        let lock = self.folder.join(LOCK);
        std::fs::remove_file(&lock).map_err(|error| Error::io(IoAction::Write, &lock, error))?;
        sync_folder(&self.folder)?;
        let parent = self.folder.parent().unwrap_or(Path::new("."));
        replace(&self.folder, target, &parent.join(trash_name(&self.folder)))?;
        sync_folder(parent)?;
        self.folder.clear();
        self.made.clear();
        Ok(())
    }

    /// Replaces each of `names` in `target` by the one in this folder, and removes those that this
    /// folder lacks.
    ///
    /// # Errors
    /// Returns I/O errors.
    pub fn commit_entries(mut self, target: &Path, names: &[&str]) -> Result<()> {
        for name in names {
            let (from, to) = (self.folder.join(name), target.join(name));
            let trash = self.folder.join(format!(".old-{name}"));
            if from.exists() {
                replace(&from, &to, &trash)?;
            } else if to.exists() {
                std::fs::rename(&to, &trash)
                    .map_err(|error| Error::io(IoAction::Write, &to, error))?;
            }
        }
        sync_folder(target)?;
        // The replaced entries are removed with the temporary folder.
        self.made.clear();
        Ok(())
    }

    /// Leaves the folder as a dead process would, for `adopt_or_new`.
    pub fn keep(mut self) {
        self.folder.clear();
        self.made.clear();
    }

    /// Removes the folder, but not the parents created for it: its contents have been moved there.
    pub fn done(mut self) {
        self.made.clear();
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        for parent in self.made.iter().rev() {
            // Fails if another process has put something there.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Creates `parent` and its missing ancestors; returns those created, outermost first.
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

/// Removes the temporary folders for `name` of dead processes.
pub(crate) fn remove_dead(parent: &Path, name: &str) {
    for (folder, _) in dead_folders(parent, name) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Returns the temporary folders for `name` of dead processes, sorted by name. Those that can be
/// adopted come with their lock, which this process now holds.
fn dead_folders(parent: &Path, name: &str) -> Vec<(PathBuf, Option<File>)> {
    let prefix = format!(".{name}.");
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let Some(id) = file_name
            .to_str()
            .and_then(|found| found.strip_prefix(&prefix)?.strip_suffix(".partial"))
        else {
            continue;
        };
        let path = entry.path();
        match File::open(path.join(LOCK)) {
            Ok(lock) if lock.try_lock().is_ok() => dead.push((path, Some(lock))),
            // Killed before it created the lock, or after it removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_running(id) => {
                dead.push((path, None));
            }
            _ => {}
        }
    }
    dead.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    dead
}

/// Returns whether the process of a folder may be running; its `id` begins with the process id and
/// a dash.
fn is_running(id: &str) -> bool {
    let process = id.split('-').next().unwrap_or_default();
    process == std::process::id().to_string()
        || !Path::new("/proc/self").exists()
        || Path::new("/proc").join(process).exists()
}

fn trash_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("{}-old.partial", name.trim_end_matches(".partial"))
}

/// Renames `from` to `to`. An existing `to` is first moved to `trash`, and moved back if that
/// fails.
fn replace(from: &Path, to: &Path, trash: &Path) -> Result<()> {
    let cannot_write = |error| Error::io(IoAction::Write, to, error);
    let replaced = to.exists();
    if replaced {
        std::fs::rename(to, trash).map_err(cannot_write)?;
    }
    if let Err(error) = std::fs::rename(from, to) {
        if replaced {
            let _ = std::fs::rename(trash, to);
        }
        return Err(cannot_write(error));
    }
    if replaced {
        let _ = std::fs::remove_dir_all(trash);
    }
    Ok(())
}

/// Writes a file and syncs it.
///
/// # Errors
/// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` and other I/O errors.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(IoAction::Write, path, error))
}

/// Replaces the file `path` completely or not at all, and makes it durable.
///
/// The bytes go to `<path>.tmp`, which is synced, renamed to `path`, and its folder synced.
///
/// # Errors
/// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO` if the file cannot be written; `path` is
/// then unchanged and nothing else is left behind.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let write = || {
        let mut file = File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(temporary, path)
    };
    if let Err(error) = write() {
        let _ = std::fs::remove_file(temporary);
        return Err(Error::io(IoAction::Write, path, error));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Syncs the names in `folder`.
///
/// # Errors
/// Returns `ERR_DISK_FULL`.
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Some file systems cannot sync a folder; there is nothing more to do then.
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Err(Error::io(IoAction::Write, folder, error))
        }
        _ => Ok(()),
    }
}

/// Syncs the files in `folder` with one call: a store has thousands, and syncing each would cost
/// one commit of the file system per file.
///
/// # Errors
/// Returns `ERR_DISK_FULL` and other I/O errors.
#[cfg(target_os = "linux")]
pub fn sync_files(folder: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let file = File::open(folder).map_err(|error| Error::io(IoAction::Read, folder, error))?;
    // SAFETY: syncfs takes nothing but a descriptor, which is open for the whole call.
    match unsafe { libc::syncfs(file.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Error::io(IoAction::Write, folder, std::io::Error::last_os_error())),
    }
}

/// Syncs the files in `folder` one by one.
///
/// # Errors
/// Returns `ERR_DISK_FULL` and other I/O errors.
#[cfg(not(target_os = "linux"))]
pub fn sync_files(folder: &Path) -> Result<()> {
    let cannot_write = |error| Error::io(IoAction::Write, folder, error);
    for entry in std::fs::read_dir(folder).map_err(cannot_write)? {
        let path = entry.map_err(cannot_write)?.path();
        let file = File::options().write(true).open(&path).map_err(cannot_write)?;
        file.sync_all().map_err(cannot_write)?;
    }
    sync_folder(folder)
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
