//! Finds and removes temporary folders that dead processes left.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::LOCK;
use super::replace::remove;

/// Removes the temporary folders for `name` that dead processes left in `parent`.
pub(crate) fn remove_dead(parent: &Path, name: &str) {
    for (folder, _) in dead_folders(parent, name) {
        dispose(&folder, &parent.join(name));
    }
}

/// Removes the folder of a dead process. If the folder is the old `target`, moved aside, it is
/// moved back instead, unless another entry has taken its place.
pub(super) fn dispose(folder: &Path, target: &Path) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with("-old.partial") && std::fs::rename(folder, target).is_ok() {
        return;
    }
    remove(folder);
}

/// Returns whether the open `file` is still the one at `path`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |status: std::fs::Metadata| (status.dev(), status.ino());
        let (open, found) = (file.metadata().map(identity), std::fs::metadata(path).map(identity));
        open.is_ok() && open.ok() == found.ok()
    }
    #[cfg(not(unix))]
    {
        file.metadata().is_ok() && path.exists()
    }
}

/// Returns the temporary folders for `name` that dead processes left in `parent`, sorted by name.
/// Those that can be adopted come with their lock, which this process then holds.
pub(crate) fn dead_folders(parent: &Path, name: &str) -> Vec<(PathBuf, Option<File>)> {
    let prefix = format!(".{name}.");
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let Some(id) = file_name
            .to_str()
            .and_then(|found| found.strip_prefix(&prefix))
            .and_then(|id| id.strip_suffix(".partial").or_else(|| id.strip_suffix(".new")))
            // With a dot, it is a folder for a longer name: `.data.x.7-0.partial` is for `data.x`.
            .filter(|id| !id.contains('.'))
        else {
            continue;
        };
        let path = entry.path();
        match File::open(path.join(LOCK)) {
            Ok(lock) if lock.try_lock().is_ok() && is_at(&lock, &path.join(LOCK)) => {
                dead.push((path, Some(lock)));
            }
            // Its process was killed before it created the lock, or this is an old entry moved
            // aside, which has none.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_running(id) => {
                dead.push((path, None));
            }
            _ => {}
        }
    }
    dead.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    dead
}

/// Returns whether the process of a folder may still be running. The folder's `id` starts with the
/// process id and a dash.
fn is_running(id: &str) -> bool {
    let process = id.split('-').next().unwrap_or_default();
    process == std::process::id().to_string()
        || !Path::new("/proc/self").exists()
        || Path::new("/proc").join(process).exists()
}
