//! Deserializes one field of a JSON object and skips the others without building them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Returns the message of an error without its position, since the caller knows the line in the
/// file.
pub(super) fn reason(error: &serde_json::Error) -> String {
    error.to_string().split(" at line 1 column").next().unwrap_or_default().to_owned()
}

/// Returns the value of `field` in the JSON object `line`, deserialized with `seed`. The error says
/// what is wrong with the line.
pub(super) fn field_of_line<'de, S: DeserializeSeed<'de> + Copy>(
    line: &'de str,
    field: &str,
    seed: S,
) -> Result<S::Value, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let value = FieldOf(field, seed).deserialize(&mut json).map_err(|error| reason(&error))?;
    json.end().map_err(|error| reason(&error))?;
    value.ok_or_else(|| {
        format!(
            "the object has no field \"{field}\"; name the field that holds the text (text_field)"
        )
    })
}

/// Deserializes one field of an object, given its name and seed, and skips the others.
struct FieldOf<'n, S>(&'n str, S);

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for FieldOf<'_, S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for FieldOf<'_, S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a JSON object with a string in \"{}\"", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut text = None;
        while let Some(wanted) = map.next_key_seed(KeyIs(self.0))? {
            if wanted {
                text = Some(map.next_value_seed(self.1)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }
}

/// Compares a key with a name without allocating the key.
struct KeyIs<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Deserializes a JSON string as bytes, borrowed from the line if it has no escapes.
#[derive(Clone, Copy)]
pub(super) struct StringBytes;

impl<'de> DeserializeSeed<'de> for StringBytes {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for StringBytes {
    type Value = Cow<'de, [u8]>;

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
