//! Checksums of files by XXH3, which runs at memory speed: 64 bits for chunks of a store and JSON
//! files, 128 bits for tensors.

use std::hash::Hasher as _;

use twox_hash::{XxHash3_64, XxHash3_128};

/// The name of the algorithm, with which a checksum starts.
const PREFIX: &str = "xxh3:";
/// Takes the place of a text's own checksum while that is computed.
pub(crate) const NO_CHECKSUM: &str = "xxh3:0000000000000000";

/// A 64-bit checksum, computed piece by piece.
#[derive(Default)]
pub(crate) struct Checksum(Box<XxHash3_64>);

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PREFIX)
    }
}

impl Checksum {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether `checksum` names the algorithm computed here.
    pub fn is_known(checksum: &str) -> bool {
        checksum.starts_with(PREFIX)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Returns the checksum of the bytes so far.
    pub fn value(&self) -> u64 {
        self.0.finish()
    }

    /// Returns `xxh3:` and 16 hexadecimal digits.
    pub fn finish(self) -> String {
        format!("{PREFIX}{:016x}", self.value())
    }
}

/// Returns the checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let mut checksum = Checksum::new();
    checksum.update(bytes);
    checksum.finish()
}

/// A 128-bit checksum, computed piece by piece.
#[derive(Default)]
pub(crate) struct WideChecksum(Box<XxHash3_128>);

impl WideChecksum {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Returns `xxh3-128:` and 32 hexadecimal digits.
    pub fn finish(&self) -> String {
        format!("xxh3-128:{:032x}", self.0.finish_128())
    }

    /// Returns the checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> String {
        let mut checksum = Self::default();
        checksum.update(bytes);
        checksum.finish()
    }
}

/// Replaces the last `NO_CHECKSUM` in `text` by the checksum of `text`. Returns the new text and
/// the checksum.
pub(crate) fn seal(text: &str) -> (String, String) {
    let found = checksum(text.as_bytes());
    (replace_last(text, NO_CHECKSUM, &found), found)
}

/// Returns whether `text` is as `seal` returned it with the checksum `expected`.
pub(crate) fn is_sealed(text: &[u8], expected: &str) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| {
        checksum(replace_last(text, expected, NO_CHECKSUM).as_bytes()) == expected
    })
}

fn replace_last(text: &str, from: &str, to: &str) -> String {
    match text.rfind(from) {
        Some(at) => [&text[..at], to, &text[at + from.len()..]].concat(),
        None => text.to_owned(),
    }
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
        // XXH3_128bits("") with seed 0, from the same test.
        assert_eq!(WideChecksum::of(b""), "xxh3-128:99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * i % 251) as u8).collect();
        let mut pieces = Checksum::new();
        bytes.chunks(977).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), checksum(&bytes));
        let mut pieces = WideChecksum::default();
        bytes.chunks(977).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), WideChecksum::of(&bytes));
    }
}
