//! One field's text out of the JSON objects of lines, without building the rest of them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::invalid_line;
use crate::Result as CoreResult;

type Text<'de> = Cow<'de, [u8]>;

/// Calls `each` with the text of `field` of every line of `lines` that is not blank; `first` lines of the file at `path` came before.
///
/// # Errors
/// `ERR_INVALID_CORPUS` naming the line, and what `each` returns.
pub(crate) fn texts_of_lines(
    lines: &str,
    first: u64,
    field: &str,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> CoreResult<()>,
) -> CoreResult<()> {
    for (line, number) in lines.split('\n').zip(first..) {
        if !line.trim_ascii().is_empty() {
            each(
                &text_of_line(line, field).map_err(|reason| invalid_line(path, number, &reason))?,
            )?;
        }
    }
    Ok(())
}

/// The text of `field` in the JSON object that is `line`: UTF-8 but for halves of surrogate pairs (`\ud800`), which JSON lets
/// stand alone.
///
/// # Errors
/// What is wrong with the line, for people.
fn text_of_line<'de>(line: &'de str, field: &str) -> Result<Text<'de>, String> {
    value_of_line(line, field, Bytes)
}

/// Calls `each` with the text of `field` as `text_of_line` gives it, a piece after the other.
///
/// # Errors
/// `ERR_INVALID_CORPUS` naming the line, and what `each` returns.
pub(crate) fn pieces_of_line(
    line: &str,
    number: u64,
    field: &str,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> CoreResult<()>,
) -> CoreResult<()> {
    let invalid = |reason: String| invalid_line(path, number, &reason);
    let raw = value_of_line(line, field, PhantomData::<&RawValue>).map_err(invalid)?.get();
    let Some(mut rest) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) else {
        return each(&text_of_line(line, field).map_err(invalid)?);
    };
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(piece_end(rest.as_bytes(), PIECE));
        let quoted = ["\"", piece, "\""].concat();
        let mut json = serde_json::Deserializer::from_str(&quoted);
        each(&Bytes.deserialize(&mut json).map_err(|error| invalid(reason(&error)))?)?;
        rest = behind;
    }
    Ok(())
}

/// Bytes of a JSON string that are unescaped together.
const PIECE: usize = 1 << 20;

/// Where the inside of a JSON string may be cut, from `least` on: not within a character, an escape or a pair of surrogates.
fn piece_end(text: &[u8], least: usize) -> usize {
    let mut at = 0;
    while at < least {
        let Some(escape) = memchr::memchr(b'\\', &text[at..]).filter(|&escape| at + escape < least)
        else {
            let is_end = |&end: &usize| text.get(end).is_none_or(|byte| byte & 0xC0 != 0x80);
            return (least.min(text.len())..text.len()).find(is_end).unwrap_or(text.len());
        };
        at += escape;
        let unicode = |at: usize| text[at.min(text.len())..].starts_with(b"\\u");
        let mut end = at + 2;
        if unicode(at) {
            end = at + 6;
            // A first half belongs to what follows.
            while end <= text.len() && is_first_half(&text[end - 4..end]) && unicode(end) {
                end += 6;
            }
        }
        at = end.min(text.len());
    }
    at
}

/// Whether four hexadecimal digits are the first half of a pair of surrogates.
fn is_first_half(digits: &[u8]) -> bool {
    matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..])
}

fn reason(error: &serde_json::Error) -> String {
    // The line is the caller's to number.
    error.to_string().split(" at line 1 column").next().unwrap_or_default().to_owned()
}

/// The value of `field` in the JSON object that is `line`.
fn value_of_line<'de, S: DeserializeSeed<'de> + Copy>(
    line: &'de str,
    field: &str,
    seed: S,
) -> Result<S::Value, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let value = Object(field, seed).deserialize(&mut json).map_err(|error| reason(&error))?;
    json.end().map_err(|error| reason(&error))?;
    value
        .ok_or_else(|| format!("has no field \"{field}\"; name the one with the text (text_field)"))
}

/// An object with the field of this name, and how its value is read.
struct Object<'n, S>(&'n str, S);

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for Object<'_, S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for Object<'_, S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a JSON object with a text in \"{}\"", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut text = None;
        while let Some(wanted) = map.next_key_seed(Key(self.0))? {
            if wanted {
                text = Some(map.next_value_seed(self.1)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }
}

/// Whether a key is this one.
struct Key<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// A JSON string as bytes.
#[derive(Clone, Copy)]
struct Bytes;

impl<'de> DeserializeSeed<'de> for Bytes {
    type Value = Text<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Bytes {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(text_of_line(line, "text").unwrap(), text.as_bytes());
        }
        let half = text_of_line(r#"{"text":"a\ud800b"}"#, "text").unwrap();
        assert_eq!(String::from_utf8_lossy(&half), "a\u{FFFD}\u{FFFD}\u{FFFD}b");
    }

    #[test]
    fn pieces_are_cut_where_nothing_is_torn() {
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
            let whole =
                text_of_line(&format!(r#"{{"text":"{inside}"}}"#), "text").unwrap().into_owned();
            for least in 1..20 {
                let (mut rest, mut texts) = (inside.as_str(), Vec::new());
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(piece_end(rest.as_bytes(), least));
                    assert!(!piece.is_empty());
                    texts.extend_from_slice(
                        &text_of_line(&format!(r#"{{"text":"{piece}"}}"#), "text").unwrap(),
                    );
                    rest = behind;
                }
                assert_eq!(texts, whole, "{inside} by {least}");
            }
        }
    }

    #[test]
    fn a_line_in_pieces_gives_the_text_of_the_line_and_its_errors() {
        let path = Path::new("x.jsonl");
        let long = r#"a\"日\u00e9 "#.repeat(3 * PIECE / 12);
        for line in
            [format!(r#"{{"id":1,"text":"{long}","z":"{long}"}}"#), r#"{"text":""}"#.to_owned()]
        {
            let mut text = Vec::new();
            let mut pieces = 0;
            let each = |piece: &[u8]| {
                text.extend_from_slice(piece);
                pieces += 1;
                Ok(())
            };
            pieces_of_line(&line, 0, "text", path, each).unwrap();
            assert!(text == *text_of_line(&line, "text").unwrap());
            assert!(line.len() < 100 || pieces > 3);
        }
        for line in [r#"{"body":"x"}"#, r#"{"text":3}"#, r#"{"text":"x""#, r#"{"text":"\x"}"#] {
            let error = pieces_of_line(line, 6, "text", path, |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("x.jsonl, line 7"), "{error}");
            assert_eq!(error.code(), "ERR_INVALID_CORPUS");
        }
    }

    #[test]
    fn what_holds_no_text_is_named() {
        for (line, said) in [
            (r#"{"body":"x"}"#, "has no field \"text\""),
            (r#"{"text":3}"#, "a text"),
            (r#"{"text":null}"#, "a text"),
            (r#"["text"]"#, "a JSON object"),
            (r#"{"text":"x""#, "EOF"),
            (r#"{"text":"x"} y"#, "trailing"),
            ("plain text", "expected value"),
        ] {
            let error = text_of_line(line, "text").unwrap_err();
            assert!(error.contains(said) && !error.contains("column"), "{line}: {error}");
        }
    }
}
