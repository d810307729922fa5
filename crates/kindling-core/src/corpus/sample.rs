//! Draws documents of a corpus at random, each with the same probability, in one pass. Memory holds
//! only the sample and the document being read.
//!
//! Reservoir sampling: document n, counted from 1, enters the sample with probability `sample / n`
//! and replaces a random member. The draws are functions of (seed, n).
//! Source: Vitter, "Random sampling with a reservoir", 1985, algorithm R.

use super::blocks::too_long;
use super::inputs::{Corpus, Input};
use super::json_lines::JsonLines;
use super::reader::{Reader, Waiting};
use crate::Result;
use crate::progress::{SendProgress, shared};
use crate::random::{Purpose, below};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;
/// Bytes kept of a document. A longer text is truncated; a longer line of JSON is an error.
const LONGEST: usize = 64 << 20;

/// Draws up to `sample` documents and returns them in the order of the corpus. A document is the
/// text of a line of JSON Lines, or the part of a text file between two `separator`s, truncated to
/// 64 MiB. Documents of white space alone are skipped.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, `ERR_INVALID_CORPUS`, `ERR_EMPTY_CORPUS` if there is no document, I/O
/// errors, and any error of `progress`.
pub fn sample_documents(
    corpus: &Corpus,
    separator: &str,
    sample: usize,
    seed: u64,
    progress: &mut SendProgress<'_>,
) -> Result<Vec<String>> {
    let mut drawn = Reservoir { sample, seed, seen: 0, documents: Vec::new() };
    let report = &shared(progress);
    let (mut done, total) = (0, corpus.size());
    for input in &corpus.inputs {
        let lines = JsonLines { path: &input.path, text_field: &corpus.text_field };
        let separator = separator.as_bytes();
        let mut documents =
            DocumentSplitter { input, lines, separator, held: Vec::new(), line: 0, searched: 0 };
        let waiting: Waiting<'_> = Box::new(move || report(done, total.max(done)));
        let mut reader = Reader::open(input, 0, waiting)?;
        while reader.read(&mut documents.held, PIECE, input)? > 0 {
            let read = done + reader.disk_bytes();
            report(read, total.max(read))?;
            documents.take_complete(&mut drawn)?;
        }
        documents.take_last(&mut drawn)?;
        done += reader.disk_bytes();
    }
    if drawn.documents.is_empty() { Err(corpus.empty()) } else { Ok(drawn.in_order()) }
}

/// The documents drawn so far.
struct Reservoir {
    sample: usize,
    seed: u64,
    seen: u64,
    /// The documents with their numbers in the corpus, from 1.
    documents: Vec<(u64, String)>,
}

impl Reservoir {
    fn add(&mut self, document: &[u8]) {
        if document.trim_ascii().is_empty() {
            return;
        }
        self.seen += 1;
        let slot = if self.documents.len() < self.sample {
            self.documents.push((0, String::new()));
            self.documents.len() - 1
        } else {
            below(self.seed, Purpose::Documents, self.seen, 0, self.seen) as usize
        };
        if let Some(drawn) = self.documents.get_mut(slot) {
            *drawn = (self.seen, String::from_utf8_lossy(document).into_owned());
        }
    }

    fn in_order(mut self) -> Vec<String> {
        self.documents.sort_unstable_by_key(|(number, _)| *number);
        self.documents.into_iter().map(|(_, document)| document).collect()
    }
}

/// Splits one input into documents.
struct DocumentSplitter<'a> {
    input: &'a Input,
    lines: JsonLines<'a>,
    separator: &'a [u8],
    /// Bytes of the documents that are not complete yet.
    held: Vec<u8>,
    /// Number of JSON lines before them.
    line: u64,
    /// No separator begins before this offset of `held`.
    searched: usize,
}

impl DocumentSplitter<'_> {
    /// Offers all complete documents to `drawn`.
    fn take_complete(&mut self, drawn: &mut Reservoir) -> Result<()> {
        if self.input.format.has_lines() {
            let Some(end) = memchr::memrchr(b'\n', &self.held[self.searched..]) else {
                self.searched = self.held.len();
                return if self.searched > LONGEST {
                    Err(too_long(self.input, LONGEST))
                } else {
                    Ok(())
                };
            };
            let end = self.searched + end;
            self.searched = 0;
            self.take_lines(end, drawn)?;
            self.line += memchr::memchr_iter(b'\n', &self.held[..=end]).count() as u64;
            self.held.drain(..=end);
            return Ok(());
        }
        let mut start = 0;
        while let Some(at) = memchr::memmem::find(&self.held[self.searched..], self.separator) {
            let end = self.searched + at;
            drawn.add(truncated(&self.held[start..end]));
            start = end + self.separator.len();
            self.searched = start;
        }
        self.held.drain(..start);
        if self.held.len() > LONGEST + self.separator.len() {
            // Keep the part that may be sampled, and the end, in which a separator may begin.
            self.held.drain(LONGEST..self.held.len() - self.separator.len());
        }
        self.searched = self.held.len().saturating_sub(self.separator.len() - 1);
        Ok(())
    }

    /// Offers the rest of the input to `drawn`.
    fn take_last(&mut self, drawn: &mut Reservoir) -> Result<()> {
        if self.input.format.has_lines() {
            return self.take_lines(self.held.len(), drawn);
        }
        drawn.add(truncated(&self.held));
        Ok(())
    }

    fn take_lines(&self, end: usize, drawn: &mut Reservoir) -> Result<()> {
        let text = String::from_utf8_lossy(&self.held[..end]);
        self.lines.each_text(&text, self.line, &mut 0, |document| {
            drawn.add(document.as_bytes());
            Ok(())
        })
    }
}

/// Returns the first `LONGEST` bytes of a document, less if that would split a character.
fn truncated(document: &[u8]) -> &[u8] {
    if document.len() <= LONGEST {
        return document;
    }
    let end = (0..LONGEST).rev().find(|&at| document[at] & 0xC0 != 0x80);
    &document[..end.unwrap_or(LONGEST)]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::corpus::TEXT_FIELD;
    use crate::progress::silent;
    use crate::test_support::Folder;

    const SEPARATOR: &str = "<|endoftext|>";

    fn sampled(path: &Path, sample: usize, seed: u64) -> Result<Vec<String>> {
        let corpus = Corpus::find(&[path.to_path_buf()], None, TEXT_FIELD)?;
        sample_documents(&corpus, SEPARATOR, sample, seed, &mut silent)
    }

    #[test]
    fn separators_are_found_at_any_offset_of_a_piece() {
        let folder = Folder::new();
        for shift in 0..30 {
            let documents: Vec<_> =
                ["x".repeat(PIECE - shift), "y".repeat(3 * PIECE), "z z".to_owned()].into();
            let text = documents.join(SEPARATOR) + SEPARATOR + " \n" + SEPARATOR;
            assert!(sampled(&folder.file("a.txt", text), 9, 0).unwrap() == documents, "{shift}");
        }
    }

    #[test]
    fn a_line_of_json_without_end_is_an_error() {
        let folder = Folder::new();
        let file = folder.file("a.jsonl", vec![b' '; LONGEST + 2 * PIECE]);
        let error = sampled(&file, 2, 0).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_CORPUS");
        assert!(error.to_string().contains("a line of more than 64 MiB"), "{error}");
    }

    #[test]
    fn very_long_documents_are_truncated() {
        let folder = Folder::new();
        let long = "é".repeat(LONGEST / 2 + PIECE) + SEPARATOR + "the sea";
        let documents = sampled(&folder.file("a.txt", long), 2, 0).unwrap();
        assert_eq!(documents[1], "the sea");
        assert!(documents[0].len() > LONGEST - 9 && documents[0].len() <= LONGEST);
        assert!(documents[0].chars().all(|c| c == 'é'));
    }

    #[test]
    fn text_json_lines_and_compressed_files_yield_the_same_sample() {
        let folder = Folder::new();
        let texts: Vec<_> = (0..500).map(|i| format!("document {i}\n\"é\"")).collect();
        let lines: Vec<_> =
            texts.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        let lines = lines.join("\n") + "\n";
        let plain = folder.file("a.txt", texts.join(SEPARATOR));
        let json = folder.file("b.jsonl", &lines);
        let unended = folder.file("c.jsonl", lines.trim_end());
        let expected = sampled(&plain, 20, 5).unwrap();
        assert_eq!(expected.len(), 20);
        assert_eq!(sampled(&json, 20, 5).unwrap(), expected);
        assert_eq!(sampled(&unended, 20, 5).unwrap(), expected);
        let compressed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compressed");
        let whole = std::fs::read_to_string(compressed.join("lines.txt")).unwrap();
        for name in ["lines.txt.gz", "lines.txt.zst"] {
            assert_eq!(sampled(&compressed.join(name), 3, 1).unwrap(), [whole.as_str()]);
        }
    }

    #[test]
    fn a_corpus_without_documents_is_an_error() {
        let folder = Folder::new();
        let error =
            |name: &str, content: &str| sampled(&folder.file(name, content), 3, 0).unwrap_err();
        assert_eq!(error("a.txt", " \n").code(), "ERR_EMPTY_CORPUS");
        let error = error("b.jsonl", "{\"text\":\"x\"}\n\n{\"body\":\"x\"}\n");
        assert_eq!(error.code(), "ERR_INVALID_CORPUS");
        assert!(error.to_string().contains("b.jsonl, line 3:"), "{error}");
    }
}
