//! Parameter groups: settings for the parameters whose name matches a pattern. Where several match, the first counts;
//! what a group leaves out it takes from the defaults.

use std::ops::Range;

use crate::model::Parameter;
use crate::{Error, Result};

/// Settings of one group.
#[derive(Debug, Clone, Default)]
pub struct GroupOptions {
    /// Names it covers; `*` stands for any run of characters. `matrices` alone stands for every matrix.
    pub pattern: String,
    /// A rate of its own, which the rate of a step does not change.
    pub lr: Option<f64>,
    /// Decays of the moments.
    pub betas: Option<(f64, f64)>,
    /// Added to the root of the second moment.
    pub eps: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
}

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
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

/// The group of each parameter.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for a pattern that matches no parameter.
fn assign(parameters: &[Parameter], groups: &[GroupOptions]) -> Result<Vec<Option<usize>>> {
    let covers = |group: &GroupOptions, parameter: &Parameter| {
        if group.pattern == "matrices" {
            parameter.is_matrix()
        } else {
            matches_pattern(&group.pattern, &parameter.name)
        }
    };
    for group in groups {
        if !parameters.iter().any(|p| covers(group, p)) {
            return Err(Error::argument(format!(
                "the pattern \"{}\" matches no parameter; names look like {}",
                group.pattern, parameters[0].name
            )));
        }
    }
    Ok(parameters.iter().map(|p| groups.iter().position(|g| covers(g, p))).collect())
}

/// The settings of every parameter, `settings` of its group; neighbours with the same ones are one run of the flat buffers.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for a pattern that matches no parameter.
pub(super) fn runs<S: PartialEq + Copy>(
    parameters: &[Parameter],
    groups: &[GroupOptions],
    settings: impl Fn(Option<&GroupOptions>) -> S,
) -> Result<Vec<(Range<usize>, S)>> {
    let mut runs: Vec<(Range<usize>, S)> = Vec::new();
    for (parameter, group) in parameters.iter().zip(assign(parameters, groups)?) {
        let settings = settings(group.map(|index| &groups[index]));
        match runs.last_mut() {
            Some((range, last)) if *last == settings && range.end == parameter.range.start => {
                range.end = parameter.range.end;
            }
            _ => runs.push((parameter.range.clone(), settings)),
        }
    }
    Ok(runs)
}

/// Says whether a setting is a number in its range.
pub(super) fn check_setting(name: &str, value: f64, range: Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let bound =
        if range.end.is_finite() { format!(" and below {}", range.end) } else { String::new() };
    Err(Error::argument(format!("{name} is {value}; it must be at least {}{bound}", range.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
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
