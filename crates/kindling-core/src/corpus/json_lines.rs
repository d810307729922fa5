//! Reads one field of each JSON Lines object without building the rest of the object.
//!
//! A JSON string may hold half a surrogate pair (`\ud800`), which UTF-8 cannot express. It becomes
//! one U+FFFD, as it does when `Tokenizer.encode` gets such a JavaScript string.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;

use super::json_field::{StringBytes, field_of_line, reason};
use super::utf8::decode_lossy;
use crate::{Error, Result};

const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// The lines of one JSON Lines file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonLines<'a> {
    pub path: &'a Path,
    /// The field that holds the text.
    pub text_field: &'a str,
}

impl JsonLines<'_> {
    /// Calls `each` with the text of every line of `lines` that is not blank. `first` is the number
    /// of lines that precede them in the file. Adds the bytes replaced by U+FFFD to `replaced`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_CORPUS` with the line number for a line that is not an object with a
    /// string in the text field, and any error of `each`.
    pub fn each_text(
        self,
        lines: &str,
        first: u64,
        replaced: &mut u64,
        mut each: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        for (line, number) in lines.split('\n').zip(first..) {
            let line = strip_mark(line, number);
            if !line.trim_ascii().is_empty() {
                let bytes = field_of_line(line, self.text_field, StringBytes);
                let bytes = bytes.map_err(|reason| self.invalid_line(number, &reason))?;
                each(&text_of(&bytes, replaced))?;
            }
        }
        Ok(())
    }

    /// Calls `each` with consecutive pieces of the text of one line, so that unescaping a text of
    /// any length takes little memory.
    ///
    /// # Errors
    /// As `each_text`.
    pub fn each_piece(
        self,
        line: &str,
        number: u64,
        replaced: &mut u64,
        mut each: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let line = strip_mark(line, number);
        let invalid = |reason: String| self.invalid_line(number, &reason);
        let seed = PhantomData::<&RawValue>;
        let raw = field_of_line(line, self.text_field, seed).map_err(invalid)?.get();
        let Some(mut rest) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) else {
            // Not a string, so this reports the error that `each_text` would.
            let bytes = field_of_line(line, self.text_field, StringBytes).map_err(invalid)?;
            return each(&text_of(&bytes, replaced));
        };
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_end(rest.as_bytes(), PIECE));
            let quoted = ["\"", piece, "\""].concat();
            let mut json = serde_json::Deserializer::from_str(&quoted);
            let bytes = StringBytes.deserialize(&mut json);
            each(&text_of(&bytes.map_err(|error| invalid(reason(&error)))?, replaced))?;
            rest = after;
        }
        Ok(())
    }

    /// Returns the error for line `number`, counted from 0.
    fn invalid_line(self, number: u64, reason: &str) -> Error {
        Error::InvalidCorpus(format!("{}, line {}: {reason}", self.path.display(), number + 1))
    }
}

/// Strips the byte order mark that some editors put at the start of a file.
fn strip_mark(line: &str, number: u64) -> &str {
    if number == 0 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line }
}

/// Decodes the bytes of a JSON string. `serde_json` encodes a lone surrogate in three bytes, as if
/// UTF-8 allowed it. Each becomes one U+FFFD, which takes three bytes too.
fn text_of<'a>(bytes: &'a [u8], replaced: &mut u64) -> Cow<'a, str> {
    if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut bytes = bytes.to_vec();
    *replaced += replace_surrogates(&mut bytes);
    Cow::Owned(decode_lossy(&bytes, replaced).into_owned())
}

/// Overwrites each encoded surrogate (U+D800 to U+DFFF) with U+FFFD. Returns the number of bytes
/// replaced.
fn replace_surrogates(bytes: &mut [u8]) -> u64 {
    let (mut at, mut replaced) = (0, 0);
    while let Some(found) = memchr::memchr(0xED, &bytes[at..]) {
        at += found;
        match &mut bytes[at..] {
            [first, second @ 0xA0..=0xBF, third, ..] => {
                (*first, *second, *third) = (0xEF, 0xBF, 0xBD);
                replaced += 3;
                at += 3;
            }
            _ => at += 1,
        }
    }
    replaced
}

/// Bytes of a JSON string unescaped at a time.
const PIECE: usize = 1 << 20;

/// Returns the first offset, from `least` on, at which the contents of a JSON string may be split:
/// not within a character, an escape or a surrogate pair.
fn piece_end(text: &[u8], least: usize) -> usize {
    let mut at = 0;
    while at < least {
        let Some(escape) = memchr::memchr(b'\\', &text[at..]).filter(|&escape| at + escape < least)
        else {
            let is_end = |&end: &usize| text.get(end).is_none_or(|byte| byte & 0xC0 != 0x80);
            return (least.min(text.len())..text.len()).find(is_end).unwrap_or(text.len());
        };
        at += escape;
        let is_unicode = |at: usize| text[at.min(text.len())..].starts_with(b"\\u");
        let mut end = at + 2;
        if is_unicode(at) {
            end = at + 6;
            // A high surrogate stays with the escape that follows.
            while end <= text.len() && is_high_surrogate(&text[end - 4..end]) && is_unicode(end) {
                end += 6;
            }
        }
        at = end.min(text.len());
    }
    at
}

/// Returns whether four hexadecimal digits encode the first half of a surrogate pair.
fn is_high_surrogate(digits: &[u8]) -> bool {
    matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> JsonLines<'static> {
        JsonLines { path: Path::new("x.jsonl"), text_field: "text" }
    }

    fn read(line: &str) -> Result<String, String> {
        let bytes = field_of_line(line, "text", StringBytes)?;
        Ok(text_of(&bytes, &mut 0).into_owned())
    }

    #[test]
    fn the_text_of_a_field_is_found_and_unescaped() {
        for (line, text) in [
            (r#"{"text":"plain"}"#, "plain"),
            (
                r#" {"id": 3, "meta": {"text": ["no"]}, "text": "a\n\"b\" \u00e9\ud83d\ude00"} "#,
                "a\n\"b\" é😀",
            ),
            (r#"{"text":""}"#, ""),
        ] {
            assert_eq!(read(line).unwrap(), text);
        }
    }

    #[test]
    fn a_lone_surrogate_becomes_one_replacement_character() {
        for (escaped, text, bytes) in [
            (r"a\ud800b", "a\u{FFFD}b", 3),
            (r"\udfff\ud800\n", "\u{FFFD}\u{FFFD}\n", 6),
            (r"\ud800\ud83d\ude00\ud7ff\ue000", "\u{FFFD}😀\u{D7FF}\u{E000}", 3),
        ] {
            let (mut text_read, mut replaced) = (String::new(), 0);
            let line = format!(r#"{{"text":"{escaped}"}}"#);
            lines()
                .each_text(&line, 0, &mut replaced, |text| {
                    text_read.push_str(text);
                    Ok(())
                })
                .unwrap();
            assert_eq!((text_read.as_str(), replaced), (text, bytes));
            let (mut text_read, mut replaced) = (String::new(), 0);
            lines()
                .each_piece(&line, 0, &mut replaced, |text| {
                    text_read.push_str(text);
                    Ok(())
                })
                .unwrap();
            assert_eq!((text_read.as_str(), replaced), (text, bytes));
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_of_a_file_only() {
        let line = "\u{FEFF}{\"text\":\"sea\"}";
        let mut texts = Vec::new();
        let mut each = |text: &str| {
            texts.push(text.to_owned());
            Ok(())
        };
        lines().each_text(line, 0, &mut 0, &mut each).unwrap();
        lines().each_piece(line, 0, &mut 0, &mut each).unwrap();
        lines().each_text("\u{FEFF}", 0, &mut 0, &mut each).unwrap();
        lines().each_text("{\"text\":\"\u{FEFF}\"}", 0, &mut 0, &mut each).unwrap();
        let error = lines().each_text(line, 1, &mut 0, &mut each).unwrap_err();
        assert!(error.to_string().contains("line 2: expected value"), "{error}");
        assert_eq!(texts, ["sea", "sea", "\u{FEFF}"]);
    }

    #[test]
    fn pieces_do_not_split_characters_escapes_or_surrogate_pairs() {
        let parts = [
            "a",
            "日",
            "😀",
            r"\n",
            r"\\",
            r"\u00e9",
            r"\ud83d\ude00",
            r"\ud800",
            r"\udc00",
            r#"\""#,
            "\u{e9}u00e9",
        ];
        for seed in 0..500u32 {
            let draw = |i: u32| (seed * 100 + i).wrapping_mul(2_654_435_761) as usize >> 8;
            let inside: String = (1..3 + seed % 30).map(|i| parts[draw(i) % parts.len()]).collect();
            let whole = read(&format!(r#"{{"text":"{inside}"}}"#)).unwrap();
            for least in 1..20 {
                let (mut rest, mut text) = (inside.as_str(), String::new());
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(piece_end(rest.as_bytes(), least));
                    assert!(!piece.is_empty());
                    text += &read(&format!(r#"{{"text":"{piece}"}}"#)).unwrap();
                    rest = after;
                }
                assert_eq!(text, whole, "{inside} by {least}");
            }
        }
    }

    #[test]
    fn pieces_add_up_to_the_text_of_the_line_and_report_the_same_errors() {
        let long = r#"a\"日\u00e9 "#.repeat(3 * PIECE / 12);
        for line in
            [format!(r#"{{"id":1,"text":"{long}","z":"{long}"}}"#), r#"{"text":""}"#.to_owned()]
        {
            let (mut text, mut pieces) = (String::new(), 0);
            let each = |piece: &str| {
                text += piece;
                pieces += 1;
                Ok(())
            };
            lines().each_piece(&line, 0, &mut 0, each).unwrap();
            assert!(text == read(&line).unwrap());
            assert!(line.len() < 100 || pieces > 3);
        }
        for line in [r#"{"body":"x"}"#, r#"{"text":3}"#, r#"{"text":"x""#, r#"{"text":"\x"}"#] {
            let error = lines().each_piece(line, 6, &mut 0, |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("x.jsonl, line 7"), "{error}");
            assert_eq!(error.code(), "ERR_INVALID_CORPUS");
        }
    }

    #[test]
    fn errors_say_what_is_wrong_with_a_line() {
        for (line, said) in [
            (r#"{"body":"x"}"#, "has no field \"text\""),
            (r#"{"text":3}"#, "a text"),
            (r#"{"text":null}"#, "a text"),
            (r#"["text"]"#, "a JSON object"),
            (r#"{"text":"x""#, "EOF"),
            (r#"{"text":"x"} y"#, "trailing"),
            ("plain text", "expected value"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(said) && !error.contains("column"), "{line}: {error}");
        }
    }
}
