//! The files of a corpus, given by names, patterns (`data/**/*.txt`), or `-` for standard input.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::error::IoAction;
use crate::{Error, Result};

/// The file name that stands for standard input.
pub const STDIN: &str = "-";
/// The default name of the JSON Lines field that holds the text.
pub const TEXT_FIELD: &str = "text";

/// The format of a file's decompressed content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// UTF-8 text.
    Text,
    /// One JSON object per line, with the text in one of its fields.
    Jsonl,
    /// Parquet, with the texts in one of its columns. `parquet/` turns it into JSON Lines.
    Parquet,
}

impl Format {
    /// Returns whether the content reaches its readers as JSON Lines.
    pub(crate) fn has_lines(self) -> bool {
        self != Self::Text
    }
}

/// One file. A resumed run compares its size and modification time to see whether it has changed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Input {
    pub path: PathBuf,
    pub format: Format,
    /// The field or column that holds the text.
    #[serde(skip)]
    pub text_field: String,
    /// Bytes on disk; 0 for standard input.
    pub size: u64,
    modified_ns: u64,
}

impl Input {
    /// Returns whether this is standard input, which cannot be read twice.
    pub fn is_stdin(&self) -> bool {
        self.path.as_os_str() == STDIN
    }
}

/// Files read one after the other. No document spans two files.
#[derive(Debug, Clone)]
pub struct Corpus {
    pub(crate) inputs: Vec<Input>,
    pub(crate) text_field: String,
}

impl Corpus {
    /// Finds the files that `names` refer to: file names, patterns, or `-` for standard input.
    /// Without a `format`, each file's name decides.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND` if a file does not exist or a pattern matches nothing, and
    /// `ERR_INVALID_ARGUMENT` if there is no name, a name is a folder, standard input is given
    /// twice or as Parquet, or a pattern is malformed.
    pub fn find(names: &[PathBuf], format: Option<Format>, text_field: &str) -> Result<Self> {
        Ok(Self { inputs: find(names, format, text_field)?, text_field: text_field.to_owned() })
    }

    /// Returns the error for a corpus without text.
    pub(crate) fn empty(&self) -> Error {
        Error::EmptyCorpus {
            path: self.inputs.first().map_or_else(PathBuf::new, |input| input.path.clone()),
        }
    }

    /// Returns the size of the files on disk in bytes; standard input counts as 0.
    pub(crate) fn size(&self) -> u64 {
        self.inputs.iter().map(|input| input.size).sum()
    }
}

/// Finds the files that `names` refer to, in the order of the names; the matches of a pattern are
/// sorted.
pub(crate) fn find(
    names: &[PathBuf],
    format: Option<Format>,
    text_field: &str,
) -> Result<Vec<Input>> {
    if names.is_empty() {
        return Err(Error::argument("no input files; name at least one, or - for standard input"));
    }
    let mut inputs = Vec::new();
    for path in expand_all(names)? {
        inputs.push(input(path, format, text_field.to_owned())?);
    }
    if inputs.iter().filter(|input| input.is_stdin()).count() > 1 {
        return Err(Error::argument("standard input (-) is named twice; name it once"));
    }
    Ok(inputs)
}

/// Expands the patterns among `names`. The name of an existing file is never taken for a pattern.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if a pattern matches nothing, and `ERR_INVALID_ARGUMENT` if it is
/// malformed.
pub fn expand_all(names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    names.iter().map(|name| expand(name)).collect::<Result<Vec<_>>>().map(|paths| paths.concat())
}

fn expand(name: &Path) -> Result<Vec<PathBuf>> {
    let pattern = name.to_str().filter(|text| text.contains(['*', '?', '[']));
    let Some(pattern) = pattern.filter(|_| !name.exists()) else {
        return Ok(vec![name.to_path_buf()]);
    };
    let matches = glob::glob(pattern).map_err(|error| {
        Error::argument(format!("{pattern} is not a valid file name pattern: {error}"))
    })?;
    let mut paths = Vec::new();
    for path in matches {
        let path = path.map_err(|error| {
            Error::io(IoAction::Read, error.path(), io::Error::other(error.to_string()))
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

fn input(path: PathBuf, format: Option<Format>, text_field: String) -> Result<Input> {
    let format = format.unwrap_or_else(|| format_of_name(&path));
    if path.as_os_str() == STDIN {
        if format == Format::Parquet {
            return Err(Error::argument(
                "Parquet cannot be read from standard input (-); name the file",
            ));
        }
        return Ok(Input { path, format, text_field, size: 0, modified_ns: 0 });
    }
    let status = std::fs::metadata(&path).map_err(|error| cannot_read(&path, error))?;
    if status.is_dir() {
        let message =
            format!("{} is a folder; name the files in it, for example {0}/*.txt", path.display());
        return Err(Error::argument(message));
    }
    let modified = status.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ns = modified.map_or(0, |time| time.as_nanos() as u64);
    let path = std::path::absolute(&path).unwrap_or(path);
    Ok(Input { path, format, text_field, size: status.len(), modified_ns })
}

/// Returns `Jsonl` for names that end in `.jsonl` or `.ndjson`, optionally followed by `.gz` or
/// `.zst`, `Parquet` for `.parquet`, and `Text` for all others.
fn format_of_name(path: &Path) -> Format {
    let is = |path: &Path, extensions: &[&str]| {
        path.extension()
            .is_some_and(|found| extensions.iter().any(|wanted| found.eq_ignore_ascii_case(wanted)))
    };
    let plain = if is(path, &["gz", "zst"]) { &path.with_extension("") } else { path };
    if is(path, &["parquet"]) {
        Format::Parquet
    } else if is(plain, &["jsonl", "ndjson"]) {
        Format::Jsonl
    } else {
        Format::Text
    }
}

pub(super) fn cannot_read(path: &Path, error: io::Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return Error::NotFound { what: "corpus", path: path.to_path_buf() };
    }
    Error::io(IoAction::Read, path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Folder;

    fn found(names: &[PathBuf]) -> Vec<String> {
        let inputs = find(names, None, TEXT_FIELD).unwrap();
        inputs
            .iter()
            .map(|input| input.path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn patterns_expand_to_their_matches_sorted_by_name() {
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
        assert_eq!(found(&[at("odd[1].txt")]), ["odd[1].txt"], "the name of a file is literal");
        for (name, code) in
            [("*.rs", "ERR_NOT_FOUND"), ("none", "ERR_NOT_FOUND"), ("deep", "ERR_INVALID_ARGUMENT")]
        {
            assert_eq!(find(&[at(name)], None, TEXT_FIELD).unwrap_err().code(), code, "{name}");
        }
        assert_eq!(
            find(&[at("a***")], None, TEXT_FIELD).unwrap_err().code(),
            "ERR_INVALID_ARGUMENT"
        );
        let twice = [PathBuf::from("-"), PathBuf::from("-")];
        assert_eq!(find(&twice, None, TEXT_FIELD).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }

    #[test]
    fn formats_are_recognized_by_file_name() {
        for (name, format) in [
            ("a.txt", Format::Text),
            ("a.jsonl", Format::Jsonl),
            ("a.JSONL.gz", Format::Jsonl),
            ("a.ndjson.zst", Format::Jsonl),
            ("a.txt.gz", Format::Text),
            ("jsonl", Format::Text),
            ("a.Parquet", Format::Parquet),
            ("a.parquet.gz", Format::Text),
        ] {
            assert_eq!(format_of_name(Path::new(name)), format, "{name}");
        }
    }
}
