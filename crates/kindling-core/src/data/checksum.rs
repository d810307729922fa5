//! Checksums of chunk files and of `store.json`: XXH3 (64 bits), as fast as memory; SHA-256 in stores of before.

use std::hash::Hasher as _;

use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;

/// A checksum in the making.
pub(super) enum Checksum {
    /// What is written.
    Xxh3(Box<XxHash3_64>),
    /// What earlier stores have.
    Sha256(Sha256),
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Checksum {
    pub fn new() -> Self {
        Self::Xxh3(Box::new(XxHash3_64::new()))
    }

    /// A checksum of the kind that `written` is of, none if the kind is unknown.
    pub fn like(written: &str) -> Option<Self> {
        match written.split_once(':')?.0 {
            "xxh3" => Some(Self::new()),
            "sha256" => Some(Self::Sha256(Sha256::new())),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Xxh3(_) => "xxh3",
            Self::Sha256(_) => "sha256",
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Xxh3(hash) => hash.write(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    /// `xxh3:<16 hexadecimal digits>` or `sha256:<64>`.
    pub fn finish(self) -> String {
        use std::fmt::Write;
        let mut text = format!("{}:", self.name());
        match self {
            Self::Xxh3(hash) => {
                let _ = write!(text, "{:016x}", hash.finish());
            }
            Self::Sha256(hash) => hash.finalize().iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            }),
        }
        text
    }
}

/// The checksum of `bytes`.
pub(super) fn checksum(bytes: &[u8]) -> String {
    let mut checksum = Checksum::new();
    checksum.update(bytes);
    checksum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_ones() {
        // XXH3_64bits("") with seed 0 of the reference implementation's sanity test, and SHA-256 of nothing (FIPS 180-4).
        assert_eq!(checksum(b""), "xxh3:2d06800538d394c2");
        let empty = Checksum::like("sha256:00").unwrap().finish();
        assert_eq!(
            empty,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(Checksum::like("crc32:0").is_none() && Checksum::like("").is_none());
    }

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * i % 251) as u8).collect();
        let mut pieces = Checksum::new();
        bytes.chunks(977).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), checksum(&bytes));
    }
}
