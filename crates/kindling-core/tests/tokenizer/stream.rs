//! Tests that text in pieces encodes to the ids of the whole.

use std::sync::Arc;

use kindling_core::tokenizer::{StreamEncoder, Tokenizer};

use crate::{Draw, END, Folder, gpt2_with, text};

const PIECES: &[&str] = &[
    "a",
    "b",
    "the",
    " ",
    " ",
    "  ",
    "\n",
    "'s",
    "'",
    "ll",
    "1",
    "23",
    ".",
    ",!",
    "é",
    "日本",
    "😀",
    "\u{3000}",
    "\u{85}",
    "<|endoftext|>",
    "<|endof",
    "text|>",
    "<|",
    "x y",
    "\u{301}",
];

fn pieces_of(draw: &mut Draw, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(draw.below(8.min(rest.len() + 1)));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

fn stream(tokenizer: &Arc<Tokenizer>, pieces: &[Vec<u8>], block: usize) -> Vec<u32> {
    let mut encoder = StreamEncoder::with_block(Arc::clone(tokenizer), block);
    let mut ids = Vec::new();
    for piece in pieces {
        encoder.push(piece, &mut ids).unwrap();
    }
    encoder.finish(&mut ids).unwrap();
    ids
}

#[test]
fn pieces_and_block_size_do_not_change_the_ids() {
    // Special tokens that overlap, contain white space, and start or end like words.
    let tokenizer = Arc::new(gpt2_with(&[END, "x y", "<|endoftext|><|endoftext|>", "b1", "  \n"]));
    for seed in 0..300 {
        let mut draw = Draw::new(seed);
        let length = 1 + draw.below(80);
        let string = draw.string(length, PIECES);
        let whole = tokenizer.encode(&string).unwrap();
        let pieces = pieces_of(&mut draw, string.as_bytes());
        for block in [0, 1, 20, 1000] {
            assert_eq!(
                stream(&tokenizer, &pieces, block),
                whole,
                "{string:?} seed {seed} block {block}"
            );
        }
    }
}

#[test]
fn invalid_utf8_encodes_like_its_replacement_and_is_counted() {
    let tokenizer = Arc::new(gpt2_with(&[END]));
    for seed in 0..100 {
        let mut draw = Draw::new(seed);
        let bytes: Vec<u8> = (0..60)
            .map(|_| [b'a', b' ', 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0xFF][draw.below(8)])
            .collect();
        let whole = tokenizer.encode_bytes(&bytes).unwrap();
        assert_eq!(stream(&tokenizer, &pieces_of(&mut draw, &bytes), 0), whole, "{bytes:x?}");
    }
    let mut encoder = StreamEncoder::new(tokenizer);
    let mut ids = Vec::new();
    encoder.push(b"a\xFFb\xE2", &mut ids).unwrap();
    encoder.finish(&mut ids).unwrap();
    assert_eq!(encoder.replaced_bytes(), 2);
}

#[test]
fn long_runs_without_a_cut_encode_like_the_whole() {
    let tokenizer = Arc::new(gpt2_with(&[END]));
    for run in ["a", " ", "\n", "'", "日"] {
        let string = run.repeat(50_000) + "b" + &run.repeat(10);
        let pieces: Vec<Vec<u8>> = string.as_bytes().chunks(100).map(<[u8]>::to_vec).collect();
        assert_eq!(stream(&tokenizer, &pieces, 64), tokenizer.encode(&string).unwrap(), "{run:?}");
    }
}

#[test]
fn an_encoder_holds_back_little_text() {
    // At most one block and the longest special token are held back.
    let tokenizer = Arc::new(gpt2_with(&[END]));
    let mut encoder = StreamEncoder::with_block(Arc::clone(&tokenizer), 64);
    let text = text("tinystories_sample.txt");
    let mut ids = Vec::new();
    for end in 1..=text.len() {
        encoder.push(&text.as_bytes()[end - 1..end], &mut ids).unwrap();
        let out = tokenizer.decode_bytes(&ids).unwrap();
        assert!(text.as_bytes().starts_with(&out) && end - out.len() < 120, "{end}");
    }
}

#[test]
fn character_tokenizers_stream_too() {
    let folder = Folder::new();
    let file = folder.file("corpus.txt", "hé日 <e> wörld");
    let options = crate::training::options(0, &["<e>"], kindling_core::tokenizer::Kind::Chars, 1);
    let (tokenizer, _) =
        Tokenizer::train(&[file], &options, &mut kindling_core::progress::silent).unwrap();
    let (tokenizer, mut draw) = (Arc::new(tokenizer), Draw::new(1));
    let string = "wé<e>d日<e>".repeat(5);
    let whole = tokenizer.encode(&string).unwrap();
    assert_eq!(whole.len(), 30);
    for _ in 0..50 {
        let pieces = pieces_of(&mut draw, string.as_bytes());
        assert_eq!(stream(&tokenizer, &pieces, 0), whole);
    }
}
