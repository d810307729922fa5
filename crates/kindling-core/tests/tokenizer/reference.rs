//! BPE training straight from its definition, which recounts all pairs before every merge.

use std::collections::HashMap;

use kindling_core::tokenizer::byte_chars::BYTE_ORDER;
use kindling_core::tokenizer::pretokens;

type Token = Vec<u8>;

/// Trains on `text`. Returns the vocabulary by id, and the merges.
pub fn train(
    text: &str,
    vocab_size: usize,
    special: &[String],
) -> (Vec<Token>, Vec<(Token, Token)>) {
    let mut vocab: Vec<Token> = special.iter().map(|token| token.clone().into_bytes()).collect();
    vocab.extend(BYTE_ORDER.iter().map(|&byte| vec![byte]));
    let mut words: HashMap<Vec<Token>, u64> = HashMap::new();
    for part in special.iter().fold(vec![text], |parts, token| {
        parts.iter().flat_map(|p| p.split(token.as_str())).collect()
    }) {
        for pretoken in pretokens(part) {
            *words.entry(pretoken.bytes().map(|byte| vec![byte]).collect()).or_default() += 1;
        }
    }
    let mut merges = Vec::new();
    while vocab.len() < vocab_size {
        let mut pairs: HashMap<(Token, Token), u64> = HashMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *pairs.entry((pair[0].clone(), pair[1].clone())).or_default() += count;
            }
        }
        let Some((best, _)) = pairs.into_iter().max_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0))) else {
            break;
        };
        words = words.into_iter().map(|(word, count)| (merge(&word, &best), count)).fold(
            HashMap::new(),
            |mut all, (word, count)| {
                *all.entry(word).or_default() += count;
                all
            },
        );
        let bytes = [best.0.clone(), best.1.clone()].concat();
        if !vocab[special.len()..].contains(&bytes) {
            vocab.push(bytes);
        }
        merges.push(best);
    }
    (vocab, merges)
}

fn merge(word: &[Token], pair: &(Token, Token)) -> Vec<Token> {
    let mut merged = Vec::new();
    let mut at = 0;
    while at < word.len() {
        if at + 1 < word.len() && word[at] == pair.0 && word[at + 1] == pair.1 {
            merged.push([word[at].clone(), word[at + 1].clone()].concat());
            at += 2;
        } else {
            merged.push(word[at].clone());
            at += 1;
        }
    }
    merged
}
