//! Counting the tokens of files without keeping them.

use std::path::PathBuf;

use super::Tokenizer;
use crate::Result;
use crate::corpus::blocks::BLOCK_SIZE;
use crate::corpus::parallel::ParallelReader;
use crate::corpus::{Corpus, ReadSummary, TEXT_FIELD};
use crate::progress::SendProgress;

impl Tokenizer {
    /// Encodes `files` on `threads` threads and returns the number of tokens. `progress` is called
    /// with the bytes read from the disk so far.
    ///
    /// # Errors
    /// As `encode`, and those of reading: `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS` and I/O errors.
    /// Errors of `progress` are passed on.
    pub fn count_tokens(
        &self,
        files: &[PathBuf],
        threads: usize,
        progress: &mut SendProgress<'_>,
    ) -> Result<(u64, ReadSummary)> {
        self.expect_much_text();
        let corpus = &Corpus::find(files, None, TEXT_FIELD)?;
        let text_cut = &|bytes: &[u8]| self.cuts().last_in_bytes(bytes, true);
        let (block_size, max_bytes) = (BLOCK_SIZE, u64::MAX);
        let longest = self.cuts().longest();
        let reader = ParallelReader { corpus, text_cut, threads, block_size, longest, max_bytes };
        let count = |(ids, tokens): &mut (Vec<u32>, u64), text: &str| {
            ids.clear();
            self.encode_into(text, ids)?;
            *tokens += ids.len() as u64;
            Ok(())
        };
        let (states, summary) = reader.read_all(progress, || (Vec::new(), 0), count)?;
        Ok((states.iter().map(|(_, tokens)| tokens).sum(), summary))
    }
}
