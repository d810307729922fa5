//! GPT-2's table of printable characters: how vocab.json and merges.txt write the 256 bytes.
//!
//! Printable bytes stand for themselves ('!'..='~', U+00A1..=U+00AC, U+00AE..=U+00FF); the other 68 take U+0100 onwards, in
//! order. Source: `bytes_to_unicode` of GPT-2's encoder.py. Token ids of the bytes follow the same order.

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
        } else if let Some(stand_in) = char::from_u32(next) {
            chars[byte] = stand_in;
            next += 1;
        }
        byte += 1;
    }
    chars
}

/// The 256 bytes in the order of their ids: the printable ones, then the rest.
pub const BYTE_ORDER: [u8; 256] = byte_order();
const BYTE_CHARS: [char; 256] = byte_chars();
const FIRST_STAND_IN: u32 = 0x100;
const STAND_INS: usize = 68;

/// The character that stands for `byte`.
pub fn to_char(byte: u8) -> char {
    BYTE_CHARS[usize::from(byte)]
}

/// `bytes` as vocab.json writes them.
pub fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| to_char(byte)).collect()
}

fn to_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    if let Ok(byte) = u8::try_from(code) {
        return is_printable(byte).then_some(byte);
    }
    let stand_in = (code - FIRST_STAND_IN) as usize;
    (stand_in < STAND_INS).then(|| BYTE_ORDER[256 - STAND_INS + stand_in])
}

/// The bytes that `text` of a vocabulary stands for, or None where one of its characters stands for none.
pub fn to_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(to_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character_and_comes_back() {
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
