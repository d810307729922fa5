//! UTF-8 that arrives in pieces: characters cut in two are put together, bytes that are none become U+FFFD.

/// The state between pieces.
#[derive(Debug, Default)]
pub struct LossyUtf8 {
    /// The beginning of a character whose rest has not come yet.
    held: Vec<u8>,
    replaced_bytes: u64,
}

impl LossyUtf8 {
    /// Bytes that were replaced so far.
    pub fn replaced_bytes(&self) -> u64 {
        self.replaced_bytes
    }

    /// Appends the text of the next piece to `text`, but for a character that may go on.
    pub fn push(&mut self, mut piece: &[u8], text: &mut String) {
        while !self.held.is_empty() && !piece.is_empty() {
            // Byte by byte until the held character is whole or turns out to be none: at most three times.
            self.held.push(piece[0]);
            piece = &piece[1..];
            let held = std::mem::take(&mut self.held);
            self.decode(&held, text);
        }
        self.decode(piece, text);
    }

    /// The end of the text: a character that was cut off is replaced.
    pub fn finish(&mut self, text: &mut String) {
        if !self.held.is_empty() {
            self.replaced_bytes += self.held.len() as u64;
            self.held.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn decode(&mut self, mut bytes: &[u8], text: &mut String) {
        loop {
            let error = match std::str::from_utf8(bytes) {
                Ok(valid) => return text.push_str(valid),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(length) = error.error_len() else {
                self.held.extend_from_slice(rest);
                return;
            };
            self.replaced_bytes += length as u64;
            text.push(char::REPLACEMENT_CHARACTER);
            bytes = &rest[length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_what_decoding_the_whole_gives() {
        let text =
            b"a\xffbc \xe2\x82\xac \xf0\x9f\x98\x80 \xe2\x82x \xf0\x9f\x98 \xc3\xa9 \xed\xa0\x80 \xe2\x82";
        let expected = String::from_utf8_lossy(text);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let (mut decoder, mut out) = (LossyUtf8::default(), String::new());
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    decoder.push(piece, &mut out);
                }
                decoder.finish(&mut out);
                assert_eq!(out, expected, "cut at {first} and {second}");
                // ff, e2 82, f0 9f 98, ed a0 80, e2 82
                assert_eq!(decoder.replaced_bytes(), 11);
            }
        }
    }

    #[test]
    fn utf8_passes_unchanged() {
        let (mut decoder, mut out) = (LossyUtf8::default(), String::new());
        "häß€😀".as_bytes().iter().for_each(|byte| decoder.push(&[*byte], &mut out));
        decoder.finish(&mut out);
        assert_eq!(out, "häß€😀");
        assert_eq!(decoder.replaced_bytes(), 0);
    }
}
