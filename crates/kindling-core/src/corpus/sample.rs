//! Documents drawn at random from one file, each with the same chance, in one pass: memory holds the drawn ones alone.
//!
//! Reservoir sampling (Vitter, "Random sampling with a reservoir", 1985, algorithm R), its draws functions of (seed, document).

use super::inputs::Input;
use super::json_lines::texts_of_lines;
use super::reader::{Reader, Waiting};
use super::{Corpus, Format};
use crate::Result;
use crate::progress::SendProgress;
use crate::random::{Purpose, below};
use crate::tokenizer::END_OF_TEXT;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;
/// Of longer documents of text, the beginning.
const LONGEST: usize = 64 << 20;

/// Up to `sample` documents of the files of `corpus`, in their order: the texts of JSON Lines, or what stands between
/// `<|endoftext|>` in text, of documents beyond 64 MiB their beginning. Documents of white space alone do not count.
///
/// # Errors
/// `ERR_NOT_FOUND`, `ERR_INVALID_CORPUS`, `ERR_EMPTY_CORPUS`, the system's errors, what `progress` returns.
pub fn sample_documents(
    corpus: &Corpus,
    sample: usize,
    seed: u64,
    progress: &mut SendProgress<'_>,
) -> Result<Vec<String>> {
    let mut drawn = Reservoir { sample, seed, seen: 0, documents: Vec::new() };
    let progress = std::sync::Mutex::new(progress);
    let (mut done, total) = (0, corpus.size());
    for input in &corpus.inputs {
        let report = |taken: u64| {
            let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            progress(taken, total.max(taken))
        };
        let mut documents = Documents { corpus, input, held: Vec::new(), line: 0, searched: 0 };
        let report = &report;
        let waiting: Waiting<'_> = Box::new(move || report(done));
        let mut reader = Reader::open(input, 0, waiting)?;
        while reader.read(&mut documents.held, PIECE, input)? > 0 {
            report(done + reader.taken())?;
            documents.take_whole(&mut drawn)?;
        }
        documents.take_last(&mut drawn)?;
        done += reader.taken();
    }
    if drawn.documents.is_empty() { Err(corpus.empty()) } else { Ok(drawn.in_order()) }
}

/// The documents drawn so far.
struct Reservoir {
    sample: usize,
    seed: u64,
    seen: u64,
    /// Each with its number.
    documents: Vec<(u64, String)>,
}

impl Reservoir {
    fn see(&mut self, document: &[u8]) {
        if document.trim_ascii().is_empty() {
            return;
        }
        self.seen += 1;
        let place = if self.documents.len() < self.sample {
            self.documents.push((0, String::new()));
            self.documents.len() - 1
        } else {
            // Document n replaces one of the drawn with chance sample / n.
            below(self.seed, Purpose::Documents, self.seen, 0, self.seen) as usize
        };
        if let Some(drawn) = self.documents.get_mut(place) {
            *drawn = (self.seen, String::from_utf8_lossy(document).into_owned());
        }
    }

    fn in_order(mut self) -> Vec<String> {
        self.documents.sort_unstable_by_key(|(number, _)| *number);
        self.documents.into_iter().map(|(_, document)| document).collect()
    }
}

/// The documents of one input.
struct Documents<'a> {
    corpus: &'a Corpus,
    input: &'a Input,
    /// Read, and of no document yet.
    held: Vec<u8>,
    /// Lines of JSON before it.
    line: u64,
    /// No end of a document begins before this byte of it.
    searched: usize,
}

impl Documents<'_> {
    /// Gives all documents that have ended to `drawn`.
    fn take_whole(&mut self, drawn: &mut Reservoir) -> Result<()> {
        if self.input.format == Format::Jsonl {
            let Some(end) = memchr::memrchr(b'\n', &self.held) else { return Ok(()) };
            self.lines(end, drawn)?;
            self.line += memchr::memchr_iter(b'\n', &self.held[..=end]).count() as u64;
            self.held.drain(..=end);
            return Ok(());
        }
        let mut start = 0;
        while let Some(at) =
            memchr::memmem::find(&self.held[self.searched..], END_OF_TEXT.as_bytes())
        {
            let end = self.searched + at;
            drawn.see(beginning(&self.held[start..end]));
            start = end + END_OF_TEXT.len();
            self.searched = start;
        }
        self.held.drain(..start);
        if self.held.len() > LONGEST + END_OF_TEXT.len() {
            // Kept are the beginning, and what may be that of the document's end.
            self.held.drain(LONGEST..self.held.len() - END_OF_TEXT.len());
        }
        self.searched = self.held.len().saturating_sub(END_OF_TEXT.len() - 1);
        Ok(())
    }

    /// Gives the document that the input ends to `drawn`.
    fn take_last(&mut self, drawn: &mut Reservoir) -> Result<()> {
        if self.input.format == Format::Jsonl {
            return self.lines(self.held.len(), drawn);
        }
        drawn.see(beginning(&self.held));
        Ok(())
    }

    fn lines(&self, end: usize, drawn: &mut Reservoir) -> Result<()> {
        let text = String::from_utf8_lossy(&self.held[..end]);
        texts_of_lines(&text, self.line, &self.corpus.text_field, &self.input.path, |document| {
            drawn.see(document);
            Ok(())
        })
    }
}

/// The document, or of a long one its beginning, up to a whole character.
fn beginning(document: &[u8]) -> &[u8] {
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

    fn sampled(path: &Path, sample: usize, seed: u64) -> Result<Vec<String>> {
        let corpus = Corpus::find(&[path.to_path_buf()], None, TEXT_FIELD)?;
        sample_documents(&corpus, sample, seed, &mut silent)
    }

    #[test]
    fn documents_of_any_length_are_found_wherever_pieces_end() {
        let folder = Folder::new();
        // Ends of documents fall on every place around the end of a piece.
        for shift in 0..30 {
            let documents: Vec<_> =
                ["x".repeat(PIECE - shift), "y".repeat(3 * PIECE), "z z".to_owned()].into();
            let text = documents.join(END_OF_TEXT) + END_OF_TEXT + " \n" + END_OF_TEXT;
            assert!(sampled(&folder.file("a.txt", text), 9, 0).unwrap() == documents, "{shift}");
        }
    }

    #[test]
    fn a_very_long_document_counts_with_its_beginning() {
        let folder = Folder::new();
        let long = "é".repeat(LONGEST / 2 + PIECE) + END_OF_TEXT + "the sea";
        let documents = sampled(&folder.file("a.txt", long), 2, 0).unwrap();
        assert_eq!(documents[1], "the sea");
        assert!(documents[0].len() > LONGEST - 9 && documents[0].len() <= LONGEST);
        assert!(documents[0].chars().all(|c| c == 'é'));
    }

    #[test]
    fn compressed_text_and_lines_of_json_are_drawn_from_as_their_texts_are() {
        let folder = Folder::new();
        let texts: Vec<_> = (0..500).map(|i| format!("document {i}\n\"é\"")).collect();
        let lines: Vec<_> =
            texts.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        let lines = lines.join("\n") + "\n";
        let plain = folder.file("a.txt", texts.join(END_OF_TEXT));
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
    fn what_holds_no_documents_is_a_coded_error() {
        let folder = Folder::new();
        let code =
            |name: &str, content: &str| sampled(&folder.file(name, content), 3, 0).unwrap_err();
        assert_eq!(code("a.txt", " \n").code(), "ERR_EMPTY_CORPUS");
        let error = code("b.jsonl", "{\"text\":\"x\"}\n\n{\"body\":\"x\"}\n");
        assert_eq!(error.code(), "ERR_INVALID_CORPUS");
        assert!(error.to_string().contains("b.jsonl, line 3:"), "{error}");
    }
}
