//! Patterns of parameter names, in which `*` matches any characters.

/// Returns whether `name` matches `pattern`, in which `*` matches any characters.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters() {
        for (pattern, name, expected) in [
            ("final_norm.g", "final_norm.g", true),
            ("final_norm.g", "final_norm.gg", false),
            ("*.g", "transformer_blocks.0.RMSNorm_FF.g", true),
            ("*.g", "token_embedding.embedding_matrix", false),
            (
                "transformer_blocks.*.Multihead_Attn.*",
                "transformer_blocks.3.Multihead_Attn.q_proj.linear_matrix",
                true,
            ),
            ("*", "", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
