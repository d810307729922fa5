//! How many tokens files have, without keeping any of them.

use std::path::PathBuf;

use crate::Result;
use crate::corpus::blocks::BLOCK_SIZE;
use crate::corpus::parallel::ParallelReader;
use crate::corpus::{Corpus, ReadSummary, TEXT_FIELD};
use crate::progress::SendProgress;
use crate::tokenizer::Tokenizer;

impl Tokenizer {
    /// Encodes `files` block by block on `threads` threads and counts the tokens. Progress counts bytes as they are on the
    /// disk.
    ///
    /// # Errors
    /// As `encode`; `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS` and the system's errors; what `progress` returns.
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
        let reader = ParallelReader { corpus, text_cut, threads, block_size, max_bytes };
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
