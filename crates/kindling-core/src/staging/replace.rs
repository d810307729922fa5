//! Replaces a file or folder by another, so that one of them is always in place.
//!
//! Linux exchanges two names in one call. Where the system or the file system cannot, the old entry
//! is moved aside first. A process killed in between leaves no entry in place, and the next attempt
//! at the same place moves the old one back.

use std::io;
use std::path::{Path, PathBuf};

/// A replacement that can be undone.
#[derive(Debug)]
pub(super) struct Replacement {
    from: PathBuf,
    to: PathBuf,
    /// Where the old entry is now, if there was one.
    old: Option<PathBuf>,
}

/// Moves `from` to `to`. An existing `to` ends up at `from`, or at `trash` where two names cannot
/// be exchanged.
pub(super) fn replace(from: &Path, to: &Path, trash: &Path) -> io::Result<Replacement> {
    let done = |old| Replacement { from: from.to_path_buf(), to: to.to_path_buf(), old };
    if std::fs::symlink_metadata(to).is_err() {
        match std::fs::rename(from, to) {
            Ok(()) => return Ok(done(None)),
            // Another process may have put an entry there meanwhile.
            Err(error) if std::fs::symlink_metadata(to).is_err() => return Err(error),
            Err(_) => {}
        }
    }
    if exchange(from, to)? {
        return Ok(done(Some(from.to_path_buf())));
    }
    replace_in_two_steps(from, to, trash)?;
    Ok(done(Some(trash.to_path_buf())))
}

fn replace_in_two_steps(from: &Path, to: &Path, trash: &Path) -> io::Result<()> {
    std::fs::rename(to, trash)?;
    let renamed = std::fs::rename(from, to);
    if renamed.is_err() {
        let _ = std::fs::rename(trash, to);
    }
    renamed
}

impl Replacement {
    /// Removes the old entry.
    pub fn keep(self) {
        if let Some(old) = &self.old {
            remove(old);
        }
    }

    /// Restores the old entry, as far as possible.
    pub fn undo(self) {
        match &self.old {
            Some(old) if *old == self.from => drop(exchange(&self.from, &self.to)),
            old => {
                let _ = std::fs::rename(&self.to, &self.from);
                if let Some(old) = old {
                    let _ = std::fs::rename(old, &self.to);
                }
            }
        }
    }
}

/// Removes a file, a link, or a folder with its contents.
pub(super) fn remove(path: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|entry| entry.is_dir()) {
        let _ = std::fs::remove_dir_all(path);
    } else {
        let _ = std::fs::remove_file(path);
    }
}

/// Exchanges two entries in one step. Returns false if that is not supported.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<bool> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let (a, b) = (CString::new(a.as_os_str().as_bytes())?, CString::new(b.as_os_str().as_bytes())?);
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // A raw system call, since glibc before 2.28 has no function for it.
    // SAFETY: both names are NUL-terminated and outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), flags) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Folder, names};

    /// Creates the folders `new` and `old`, each with a file of its name.
    fn two_folders(root: &Folder) -> (PathBuf, PathBuf, PathBuf) {
        let [new, old, trash] = ["new", "old", "trash"].map(|name| root.path().join(name));
        for folder in [&new, &old] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join(folder.file_name().unwrap()), "").unwrap();
        }
        (new, old, trash)
    }

    #[test]
    fn either_way_of_replacing_leaves_the_new_folder_and_can_be_undone() {
        let root = Folder::new();
        let (new, old, trash) = two_folders(&root);
        replace(&new, &old, &trash).unwrap().undo();
        assert_eq!((names(&new), names(&old)), (vec!["new".to_owned()], vec!["old".to_owned()]));
        replace_in_two_steps(&new, &old, &trash).unwrap();
        assert_eq!((names(&old), names(&trash)), (vec!["new".to_owned()], vec!["old".to_owned()]));
        Replacement { from: new.clone(), to: old.clone(), old: Some(trash.clone()) }.undo();
        assert_eq!((names(&new), names(&old)), (vec!["new".to_owned()], vec!["old".to_owned()]));
        replace(&new, &old, &trash).unwrap().keep();
        assert_eq!((names(&old), names(root.path())), (vec!["new".into()], vec!["old".to_owned()]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_reader_finds_a_whole_folder_at_every_moment() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let root = Folder::new();
        let (new, old, trash) = two_folders(&root);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = 0u32;
                while !done.load(Ordering::Relaxed) {
                    assert!(old.exists(), "there is a moment without a folder");
                    seen += 1;
                }
                seen
            });
            for _ in 0..20_000 {
                replace(&new, &old, &trash).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(watch.join().unwrap() > 0);
        });
    }
}
