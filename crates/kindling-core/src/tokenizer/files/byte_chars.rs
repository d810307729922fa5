//! GPT-2's characters for bytes, in which vocab.json and merges.txt write the 256 bytes.
//!
//! Printable bytes ('!'..='~', U+00A1..=U+00AC, U+00AE..=U+00FF) are written as themselves. The
//! other 68 become U+0100 and up, in order. The ids of the bytes follow the same order.
//!
//! Source: `bytes_to_unicode` in <https://github.com/openai/gpt-2/blob/master/src/encoder.py>

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn byte_order() -> [u8; 256] {
    let mut order = [0; 256];
    let mut filled = 0;
    let mut printable = true;
    loop {
        let mut byte = 0;
        while byte < 256 {
            if is_printable(byte as u8) == printable {
                order[filled] = byte as u8;
                filled += 1;
            }
            byte += 1;
        }
        if !printable {
            return order;
        }
        printable = false;
    }
}

const fn byte_chars() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let mut next: u32 = 0x100;
    let mut byte = 0;
    while byte < 256 {
        if is_printable(byte as u8) {
            chars[byte] = byte as u8 as char;
        } else if let Some(replacement) = char::from_u32(next) {
            chars[byte] = replacement;
            next += 1;
        }
        byte += 1;
    }
    chars
}

/// The 256 bytes in the order of their ids: printable ones first.
pub const BYTE_ORDER: [u8; 256] = byte_order();
const BYTE_CHARS: [char; 256] = byte_chars();
const FIRST_REPLACEMENT: u32 = 0x100;
const REPLACEMENTS: usize = 68;

/// Returns the character for `byte`.
pub fn to_char(byte: u8) -> char {
    BYTE_CHARS[usize::from(byte)]
}

/// Returns `bytes` as vocab.json writes them.
pub fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| to_char(byte)).collect()
}

fn to_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    if let Ok(byte) = u8::try_from(code) {
        return is_printable(byte).then_some(byte);
    }
    let replacement = (code - FIRST_REPLACEMENT) as usize;
    (replacement < REPLACEMENTS).then(|| BYTE_ORDER[256 - REPLACEMENTS + replacement])
}

/// Returns the bytes for which a vocabulary writes `text`, or `None` if one of its characters
/// stands for no byte.
pub fn to_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(to_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        let text = to_text(&all);
        assert_eq!(to_bytes(&text), Some(all));
        assert_eq!(to_text(b" \n"), "\u{120}\u{10a}");
        assert_eq!(to_bytes("\u{144}"), None);
        assert_eq!(to_bytes(" "), None);
    }

    #[test]
    fn printable_bytes_come_first() {
        assert_eq!(&BYTE_ORDER[..3], b"!\"#");
        assert_eq!(BYTE_ORDER[188], 0);
        assert_eq!(BYTE_ORDER[255], 0xAD);
        assert_eq!(BYTE_ORDER[187], 0xFF);
    }
}
