//! The steps around the model of a tokenizer.json, to and from the rules of a tokenizer.

use serde_json::{Value, json};

use crate::tokenizer::parts::{Kind, Parts, Template};
use crate::tokenizer::pretokenize::Pattern;

/// Returns the steps of a `Sequence`, whose list is named `list`, or a step of any other type
/// alone.
fn steps<'a>(step: &'a Value, list: &str) -> Vec<&'a Value> {
    match step[list].as_array() {
        Some(inner) if step["type"] == "Sequence" => {
            inner.iter().flat_map(|inner| steps(inner, list)).collect()
        }
        _ if step.is_null() => Vec::new(),
        _ => vec![step],
    }
}

/// Returns whether the normalizer is NFC, rather than absent. The error names any other normalizer.
pub fn is_nfc(normalizer: &Value) -> Result<bool, String> {
    let steps = steps(normalizer, "normalizers");
    match steps.iter().find(|step| step["type"] != "NFC") {
        Some(step) => Err(format!(
            "its normalizer {} is not NFC, the only one that Kindling supports",
            step["type"]
        )),
        None => Ok(!steps.is_empty()),
    }
}

/// Returns the pattern of a byte-level pre-tokenizer: GPT-2's if it is alone, that of a `Split`
/// before it, or SmolLM's if `Digits` comes before it.
pub fn pattern(pre: &Value) -> Result<Pattern, String> {
    let byte_level = |step: &Value, regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"].as_bool() == Some(false)
            && step["use_regex"].as_bool().unwrap_or(true) == regex
    };
    let digits = |step: &Value| step["type"] == "Digits" && step["individual_digits"] == true;
    match steps(pre, "pretokenizers")[..] {
        [level] if byte_level(level, true) => Ok(Pattern::Gpt2),
        [first, level] if digits(first) && byte_level(level, true) => Ok(Pattern::Smollm),
        [first, level] if first["type"] == "Split" && byte_level(level, false) => split(first),
        _ => Err(format!(
            "its pre-tokenizer is not ByteLevel without a prefix space, alone or after Split or \
             Digits with individual_digits: {pre}"
        )),
    }
}

/// Returns the pattern of a `Split` whose matches, and the text between them, are pre-tokens.
fn split(step: &Value) -> Result<Pattern, String> {
    let Some(regex) = step["pattern"]["Regex"].as_str() else {
        return Err(format!("its Split has no regular expression: {}", step["pattern"]));
    };
    let pattern = Pattern::from_tokenizer_json(regex).map_err(|error| error.to_string())?;
    let inverted = step["invert"] == true;
    match step["behavior"].as_str() {
        Some("Isolated") if !inverted => Ok(pattern),
        // Nothing is removed if the matches cover every text.
        Some("Removed") if inverted && pattern.matches_everything() => Ok(pattern),
        _ => Err(format!(
            "its Split has the behavior {} (invert {}), which Kindling does not support",
            step["behavior"], step["invert"]
        )),
    }
}

/// Returns what the post-processor adds to a text. The error names a step that does anything else.
pub fn template(post: &Value) -> Result<Template, String> {
    let mut found = Template::default();
    for step in steps(post, "processors") {
        match step["type"].as_str() {
            // Only moves offsets.
            Some("ByteLevel") => {}
            Some("TemplateProcessing") => {
                let inner = single(step)?;
                found.before.splice(..0, inner.before);
                found.after.extend(inner.after);
            }
            _ => {
                return Err(format!(
                    "its post-processor {} is neither TemplateProcessing nor ByteLevel",
                    step["type"]
                ));
            }
        }
    }
    Ok(found)
}

/// Returns the template of a `TemplateProcessing` for a single text.
fn single(step: &Value) -> Result<Template, String> {
    let mut found = Template::default();
    let mut seen_text = false;
    for piece in step["single"].as_array().map_or(&[][..], Vec::as_slice) {
        if piece["Sequence"]["id"] == "A" && !seen_text {
            seen_text = true;
            continue;
        }
        let name = piece["SpecialToken"]["id"].as_str();
        let ids = name.and_then(|name| step["special_tokens"][name]["ids"].as_array());
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = ids.and_then(|ids| ids.iter().map(id).collect());
        let ids = ids.ok_or_else(|| {
            format!("its post-processor has a piece that is neither a token nor the text: {piece}")
        })?;
        if seen_text { &mut found.after } else { &mut found.before }.extend(ids);
    }
    if seen_text {
        Ok(found)
    } else {
        Err("the template of its post-processor does not contain the text".to_owned())
    }
}

/// Checks that the decoder, if there is one, reads bytes as `ByteLevel` does.
pub fn check_decoder(decoder: &Value) -> Result<(), String> {
    let steps = steps(decoder, "decoders");
    match steps.iter().find(|step| step["type"] != "ByteLevel") {
        Some(step) => Err(format!("its decoder {} is not ByteLevel", step["type"])),
        None => Ok(()),
    }
}

fn byte_level(regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": regex})
}

/// Returns the normalizer of `parts`.
pub fn write_normalizer(parts: &Parts) -> Value {
    if parts.rules.nfc { json!({"type": "NFC"}) } else { Value::Null }
}

/// Returns the pre-tokenizer of `parts`.
pub fn write_pre_tokenizer(parts: &Parts) -> Value {
    let first = match parts.pattern {
        _ if parts.kind == Kind::Chars => return Value::Null,
        Pattern::Gpt2 => return byte_level(true),
        Pattern::Smollm => json!({"type": "Digits", "individual_digits": true}),
        _ => json!({"type": "Split", "pattern": {"Regex": parts.pattern.portable_source()},
            "behavior": "Isolated", "invert": false}),
    };
    let level = byte_level(parts.pattern == Pattern::Smollm);
    json!({"type": "Sequence", "pretokenizers": [first, level]})
}

/// Returns the decoder of `parts`.
pub fn write_decoder(parts: &Parts) -> Value {
    match parts.kind {
        Kind::Bpe => byte_level(true),
        Kind::Chars => json!({"type": "Fuse"}),
    }
}

/// Returns the post-processor of `parts`. `text_of` returns the text of a token.
pub fn write_post_processor<'a>(parts: &Parts, text_of: impl Fn(u32) -> &'a str) -> Value {
    let Template { before, after } = &parts.rules.template;
    if before.is_empty() && after.is_empty() {
        return Value::Null;
    }
    let tokens = |ids: &[u32], text: usize| -> Vec<Value> {
        let token = |&id: &u32| json!({"SpecialToken": {"id": text_of(id), "type_id": text}});
        ids.iter().map(token).collect()
    };
    let around = |name: &str, text: usize| {
        let sequence = json!({"Sequence": {"id": name, "type_id": text}});
        [tokens(before, text), vec![sequence], tokens(after, text)].concat()
    };
    let special = |&id: &u32| {
        let text = text_of(id);
        (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}))
    };
    let special: serde_json::Map<String, Value> = before.iter().chain(after).map(special).collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    json!({"type": "TemplateProcessing", "single": around("A", 0), "pair": pair,
        "special_tokens": special})
}
