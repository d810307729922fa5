//! Checksums of chunk files and of `store.json`: XXH3 (64 bits), which runs at memory speed.

use std::hash::Hasher as _;

use twox_hash::XxHash3_64;

/// Every checksum begins with the name of its algorithm.
const PREFIX: &str = "xxh3:";

/// A checksum that is being computed.
#[derive(Default)]
pub(super) struct Checksum(Box<XxHash3_64>);

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PREFIX)
    }
}

impl Checksum {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether `checksum` is of the algorithm computed here.
    pub fn is_known(checksum: &str) -> bool {
        checksum.starts_with(PREFIX)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Returns `xxh3:` and 16 hexadecimal digits.
    pub fn finish(self) -> String {
        format!("{PREFIX}{:016x}", self.0.finish())
    }
}

/// Returns the checksum of `bytes`.
pub(super) fn checksum(bytes: &[u8]) -> String {
    let mut checksum = Checksum::new();
    checksum.update(bytes);
    checksum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_nothing_is_the_published_one() {
        // XXH3_64bits("") with seed 0, from the sanity test of the reference implementation.
        assert_eq!(checksum(b""), "xxh3:2d06800538d394c2");
        assert!(Checksum::is_known("xxh3:0"));
        assert!(!Checksum::is_known("crc32:0") && !Checksum::is_known(""));
    }

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * i % 251) as u8).collect();
        let mut pieces = Checksum::new();
        bytes.chunks(977).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), checksum(&bytes));
    }
}
