//! One field's text out of the JSON objects of lines, without building the rest of them.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

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
            each(&text_of_line(line, field).map_err(|reason| invalid_line(path, number, &reason))?)?;
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
    let mut json = serde_json::Deserializer::from_str(line);
    // The line is the caller's to number.
    let reason = |error: serde_json::Error| {
        let text = error.to_string();
        text.split(" at line 1 column").next().unwrap_or_default().to_owned()
    };
    let text = Object(field).deserialize(&mut json).map_err(reason)?;
    json.end().map_err(reason)?;
    text.ok_or_else(|| format!("has no field \"{field}\"; name the one with the text (text_field)"))
}

/// An object with the field of this name.
struct Object<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Option<Text<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Option<Text<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a JSON object with a text in \"{}\"", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut text = None;
        while let Some(wanted) = map.next_key_seed(Key(self.0))? {
            if wanted {
                text = Some(map.next_value_seed(Bytes)?);
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
