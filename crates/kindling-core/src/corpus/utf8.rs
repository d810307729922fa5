//! Decodes bytes to text. Invalid UTF-8 becomes U+FFFD as with Python's `errors='replace'`: one for
//! each maximal prefix of a sequence that could have become a character.

use std::borrow::Cow;

/// Decodes `bytes` and adds the number of bytes replaced by U+FFFD to `replaced`.
pub(crate) fn decode_lossy<'a>(bytes: &'a [u8], replaced: &mut u64) -> Cow<'a, str> {
    if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    *replaced += bytes.utf8_chunks().map(|chunk| chunk.invalid().len() as u64).sum::<u64>();
    String::from_utf8_lossy(bytes)
}

/// Decodes a stream of bytes whose pieces may end anywhere, even within a character.
#[derive(Debug, Default)]
pub struct LossyDecoder {
    /// The start of a character that the next piece may complete; at most three bytes.
    tail: Vec<u8>,
    replaced_bytes: u64,
}

impl LossyDecoder {
    /// Returns the number of bytes replaced so far.
    pub fn replaced_bytes(&self) -> u64 {
        self.replaced_bytes
    }

    /// Appends the text that `bytes` complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut String) {
        while !self.tail.is_empty() {
            let Some((&byte, rest)) = bytes.split_first() else { return };
            self.tail.push(byte);
            match std::str::from_utf8(&self.tail) {
                Ok(character) => {
                    out.push_str(character);
                    self.tail.clear();
                    bytes = rest;
                }
                Err(error) if error.error_len().is_none() => bytes = rest,
                Err(_) => {
                    // The byte does not continue the character, so it is decoded again on its own.
                    self.tail.pop();
                    self.replace_tail(out);
                }
            }
        }
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            if chunk.invalid().is_empty() {
                continue;
            }
            self.tail.extend_from_slice(chunk.invalid());
            let may_continue = chunks.peek().is_none()
                && std::str::from_utf8(&self.tail).is_err_and(|e| e.error_len().is_none());
            if !may_continue {
                self.replace_tail(out);
            }
        }
    }

    /// Ends the stream. An incomplete character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.tail.is_empty() {
            self.replace_tail(out);
        }
    }

    fn replace_tail(&mut self, out: &mut String) {
        self.replaced_bytes += self.tail.len() as u64;
        self.tail.clear();
        out.push(char::REPLACEMENT_CHARACTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_decode_as_the_whole_does() {
        let inputs: [&[u8]; 6] = [
            "aé日😀z".as_bytes(),
            b"a\xE2\x82",
            b"\xF0\x9F\x98a\xE2\x82\xE2\x82\xACb\xFF\xC0\xAF",
            b"\xED\xA0\x80x\xF4\x90\x80\x80",
            b"\x80\x80\xF0\x80\xC3",
            b"",
        ];
        for input in inputs {
            let expected = String::from_utf8_lossy(input);
            for size in 1..=input.len().max(1) {
                let (mut decoder, mut out) = (LossyDecoder::default(), String::new());
                for piece in input.chunks(size) {
                    decoder.push(piece, &mut out);
                }
                decoder.finish(&mut out);
                assert_eq!(out, expected, "{input:x?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn replaced_bytes_are_counted() {
        let bytes = b"a\xFFb\xE2\x82";
        let (mut decoder, mut out) = (LossyDecoder::default(), String::new());
        decoder.push(bytes, &mut out);
        decoder.finish(&mut out);
        assert_eq!((decoder.replaced_bytes(), out.as_str()), (3, "a\u{FFFD}b\u{FFFD}"));
        let mut replaced = 0;
        assert_eq!(decode_lossy(bytes, &mut replaced), out);
        assert_eq!(replaced, 3);
    }
}
