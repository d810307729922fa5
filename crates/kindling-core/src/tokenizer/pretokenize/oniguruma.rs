//! Quantifiers that mean one thing to Kindling and another to Hugging Face `tokenizers`.
//!
//! Kindling runs its patterns with fancy-regex; `tokenizers` runs those of a tokenizer.json with
//! Oniguruma and Ruby's syntax, which has neither possessive intervals nor lazy fixed ones:
//!
//! | written | fancy-regex | Oniguruma | both |
//! |---|---|---|---|
//! | `X{n,m}+` | possessive | `(?:X{n,m})+` | `(?>X{n,m})` |
//! | `X{n}?` | lazy | `(?:X{n})?` | `X{n}` |
//!
//! `?+`, `*+`, `++` and lazy intervals with two bounds mean the same in both.
//! Source: <https://github.com/kkos/oniguruma/blob/master/doc/RE>, "3. Quantifier".

/// Rewrites a pattern for fancy-regex so that both engines read it alike.
pub fn to_portable(pattern: &str) -> String {
    rewrite(pattern, |atom, quantifier| match quantifier {
        Quantifier::PossessiveInterval(interval) => format!("(?>{atom}{interval})"),
        Quantifier::LazyFixed(interval) => format!("{atom}{interval}"),
    })
}

/// Rewrites a pattern for Oniguruma so that both engines read it alike.
pub fn from_oniguruma(pattern: &str) -> String {
    rewrite(pattern, |atom, quantifier| match quantifier {
        Quantifier::PossessiveInterval(interval) => format!("(?:{atom}{interval})+"),
        Quantifier::LazyFixed(interval) => format!("(?:{atom}{interval})?"),
    })
}

/// A quantifier on which the engines differ, with the `{...}` before its last character.
enum Quantifier<'a> {
    /// `{n}+`, `{n,}+` or `{n,m}+`.
    PossessiveInterval(&'a str),
    /// `{n}?`.
    LazyFixed(&'a str),
}

/// Replaces each atom that has a `Quantifier` with the result of `replace`.
///
/// Tracks where in the output the last atom (a character, escape, class or group) starts. White
/// space is an atom, so in verbose mode, `(?x)`, quantifiers must follow their atom immediately.
fn rewrite(pattern: &str, replace: impl Fn(&str, Quantifier) -> String) -> String {
    let mut out = String::with_capacity(pattern.len());
    let (mut atom, mut open_groups) = (0, Vec::new());
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some((quantifier, length)) = differing_quantifier(rest) {
            let replaced = replace(&out[atom..], quantifier);
            out.replace_range(atom.., &replaced);
            rest = &rest[length..];
            continue;
        }
        let length = match first {
            '\\' => escape_length(rest),
            '[' => class_length(rest),
            '{' => interval_length(rest).unwrap_or(1),
            _ => first.len_utf8(),
        };
        match first {
            '(' => open_groups.push(out.len()),
            ')' => atom = open_groups.pop().unwrap_or(out.len()),
            '?' | '*' | '+' => {}
            '{' if length > 1 => {}
            _ => atom = out.len(),
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// Returns the quantifier that `rest` starts with and its length, if the engines differ on it.
fn differing_quantifier(rest: &str) -> Option<(Quantifier<'_>, usize)> {
    let (interval, after) = rest.split_at(interval_length(rest)?);
    let quantifier = match after.chars().next()? {
        '+' => Quantifier::PossessiveInterval(interval),
        '?' if !interval.contains(',') => Quantifier::LazyFixed(interval),
        _ => return None,
    };
    Some((quantifier, interval.len() + 1))
}

/// Returns the length of `{n}`, `{n,}`, `{,m}` or `{n,m}` at the start of `rest`.
fn interval_length(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('{')?.split_once('}')?.0;
    let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
    let is_number = |bound: &str| bound.bytes().all(|byte| byte.is_ascii_digit());
    let is_interval = is_number(least) && is_number(most) && !(least.is_empty() && most.is_empty());
    is_interval.then_some(inside.len() + 2)
}

/// Returns the length of the escape that `rest` starts with.
fn escape_length(rest: &str) -> usize {
    let Some(kind) = rest[1..].chars().next() else { return rest.len() };
    let name = 1 + kind.len_utf8();
    let argument = &rest[name..];
    let until = |close: char| argument.find(close).map_or(rest.len(), |at| name + at + 1);
    let digits =
        |most: usize| name + argument.bytes().take(most).take_while(u8::is_ascii_hexdigit).count();
    match (kind, argument.chars().next()) {
        ('p' | 'P' | 'x' | 'u' | 'U', Some('{')) => until('}'),
        ('p' | 'P', Some(class)) => name + class.len_utf8(),
        ('k' | 'g', Some('<')) => until('>'),
        ('x', _) => digits(2),
        ('u', _) => digits(4),
        ('U', _) => digits(8),
        _ => name,
    }
}

/// Returns the length of the character class, with the classes inside it, that `rest` starts with.
fn class_length(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while let Some(next) = rest[at..].chars().next() {
        match next {
            '\\' => at += escape_length(&rest[at..]),
            '[' => {
                depth += 1;
                at += 1 + usize::from(rest[at + 1..].starts_with('^'));
                // A closing bracket that comes first is a member of the class.
                at += usize::from(rest[at..].starts_with(']'));
            }
            ']' => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += next.len_utf8(),
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possessive_intervals_become_atomic_groups() {
        let cases = [
            (r"\p{N}{1,3}+", r"(?>\p{N}{1,3})"),
            (r"a\pN{2,}+b", r"a(?>\pN{2,})b"),
            (r"ab{3}+", r"a(?>b{3})"),
            (r"(a|b{1,2}+){1,3}+c", r"(?>(a|(?>b{1,2})){1,3})c"),
            (r"[^\]\p{L}[a-z]{1,2}+]{1,3}+", r"(?>[^\]\p{L}[a-z]{1,2}+]{1,3})"),
            (r"[]a]{1,2}+", r"(?>[]a]{1,2})"),
            (r"\x41{1,2}+\u{e9}{1,2}+日{1,2}+", r"(?>\x41{1,2})(?>\u{e9}{1,2})(?>日{1,2})"),
            (r"(?i:ab){1,2}+|\{1,2}+", r"(?>(?i:ab){1,2})|\{1,2}+"),
            (r"\d{2}?\d{2}", r"\d{2}\d{2}"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(to_portable(pattern), expected);
        }
    }

    #[test]
    fn quantifiers_of_a_tokenizer_json_keep_their_meaning_there() {
        assert_eq!(from_oniguruma(r"\p{N}{1,3}+|\d{2}?"), r"(?:\p{N}{1,3})+|(?:\d{2})?");
    }

    #[test]
    fn patterns_that_both_engines_read_alike_stay_as_they_are() {
        for pattern in [
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
            r"(?>\p{N}{1,3})|a{1,2}?|b{,3}|{x}+|\p{N}{1,3}|a?+b*+",
            "[a",
            r"\",
        ] {
            assert_eq!(to_portable(pattern), pattern);
            assert_eq!(from_oniguruma(pattern), pattern);
        }
    }
}
