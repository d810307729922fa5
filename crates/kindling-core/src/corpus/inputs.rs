//! Which files a corpus consists of: names, patterns (`data/**/*.txt`), `-` for standard input.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::{Error, Result};

/// The name that stands for standard input.
pub const STDIN: &str = "-";

/// What the bytes of a file, once decompressed, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text in UTF-8.
    Text,
    /// An object a line, one of its fields the text.
    Jsonl,
}

/// One file; its size and time tell whether it is still the one a killed run read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Input {
    pub path: PathBuf,
    pub format: Format,
    /// Bytes on disk; 0 for standard input.
    pub size: u64,
    modified_ns: u64,
}

impl Input {
    /// Whether it is standard input, which cannot be read a second time.
    pub fn is_stdin(&self) -> bool {
        self.path.as_os_str() == STDIN
    }
}

/// Finds the files that `names` stand for, in this order, those of a pattern by name. A name that is a file is no pattern.
pub(crate) fn find(names: &[PathBuf], format: Option<Format>) -> Result<Vec<Input>> {
    if names.is_empty() {
        return Err(Error::argument("no file to read; name at least one, or - for standard input"));
    }
    let mut inputs = Vec::new();
    for path in expand_all(names)? {
        inputs.push(input(path, format)?);
    }
    if inputs.iter().filter(|input| input.is_stdin()).count() > 1 {
        return Err(Error::argument("standard input (-) can be read once only"));
    }
    Ok(inputs)
}

/// The names of the files that `names` stand for, as `Corpus::find` finds them.
///
/// # Errors
/// `ERR_NOT_FOUND` for a pattern without a match, `ERR_INVALID_ARGUMENT` for what is none.
pub fn expand_all(names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    names.iter().map(|name| expand(name)).collect::<Result<Vec<_>>>().map(|paths| paths.concat())
}

fn expand(name: &Path) -> Result<Vec<PathBuf>> {
    let pattern = name.to_str().filter(|text| text.contains(['*', '?', '[']));
    let Some(pattern) = pattern.filter(|_| !name.exists()) else {
        return Ok(vec![name.to_path_buf()]);
    };
    let matches = glob::glob(pattern).map_err(|error| {
        Error::argument(format!("{pattern} is no pattern of file names: {error}"))
    })?;
    let mut paths = Vec::new();
    for path in matches {
        let path = path.map_err(|error| {
            Error::io("cannot read", error.path(), io::Error::other(error.to_string()))
        })?;
        if !path.is_dir() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error::NotFound { what: "corpus", path: name.to_path_buf() });
    }
    paths.sort_unstable();
    Ok(paths)
}

fn input(path: PathBuf, format: Option<Format>) -> Result<Input> {
    let format = format.unwrap_or_else(|| format_of_name(&path));
    if path.as_os_str() == STDIN {
        return Ok(Input { path, format, size: 0, modified_ns: 0 });
    }
    let status = std::fs::metadata(&path).map_err(|error| cannot_read(&path, error))?;
    if status.is_dir() {
        let message = format!("{} is a folder; name the files in it, as {0}/*.txt", path.display());
        return Err(Error::argument(message));
    }
    let modified = status.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ns = modified.map_or(0, |time| time.as_nanos() as u64);
    let path = std::path::absolute(&path).unwrap_or(path);
    Ok(Input { path, format, size: status.len(), modified_ns })
}

/// JSON Lines by its name: `.jsonl` or `.ndjson`, with `.gz` or `.zst` after it or not.
fn format_of_name(path: &Path) -> Format {
    let is = |path: &Path, extensions: [&str; 2]| {
        path.extension()
            .is_some_and(|found| extensions.iter().any(|wanted| found.eq_ignore_ascii_case(wanted)))
    };
    let plain = if is(path, ["gz", "zst"]) { &path.with_extension("") } else { path };
    if is(plain, ["jsonl", "ndjson"]) { Format::Jsonl } else { Format::Text }
}

pub(super) fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return Error::NotFound { what: "corpus", path: path.to_path_buf() };
    }
    Error::io("cannot read", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Folder;

    fn found(names: &[PathBuf]) -> Vec<String> {
        let inputs = find(names, None).unwrap();
        inputs
            .iter()
            .map(|input| input.path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn patterns_stand_for_files_in_the_order_of_their_names() {
        let root = Folder::new();
        std::fs::create_dir_all(root.path().join("deep/er.txt")).unwrap();
        for name in ["b.txt", "a.txt", "c.md", "deep/d.txt", "odd[1].txt"] {
            std::fs::write(root.path().join(name), "x").unwrap();
        }
        let at = |name: &str| root.path().join(name);
        assert_eq!(
            found(&[at("?.txt"), at("c.md"), at("a.txt")]),
            ["a.txt", "b.txt", "c.md", "a.txt"]
        );
        assert_eq!(found(&[at("**/[ad].txt")]), ["a.txt", "d.txt"]);
        assert_eq!(found(&[at("odd[1].txt")]), ["odd[1].txt"], "a file's own name is no pattern");
        for (name, code) in
            [("*.rs", "ERR_NOT_FOUND"), ("none", "ERR_NOT_FOUND"), ("deep", "ERR_INVALID_ARGUMENT")]
        {
            assert_eq!(find(&[at(name)], None).unwrap_err().code(), code, "{name}");
        }
        assert_eq!(find(&[at("a***")], None).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        let twice = [PathBuf::from("-"), PathBuf::from("-")];
        assert_eq!(find(&twice, None).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }

    #[test]
    fn json_lines_are_known_by_their_names() {
        for (name, format) in [
            ("a.txt", Format::Text),
            ("a.jsonl", Format::Jsonl),
            ("a.JSONL.gz", Format::Jsonl),
            ("a.ndjson.zst", Format::Jsonl),
            ("a.txt.gz", Format::Text),
            ("jsonl", Format::Text),
        ] {
            assert_eq!(format_of_name(Path::new(name)), format, "{name}");
        }
    }
}
