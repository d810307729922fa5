//! Splitting text into pre-tokens.

mod cl100k;
mod gpt2;
mod masks;
mod pattern;
mod scan;
mod unicode;
mod unicode_ranges;

pub use self::gpt2::pretokens;
pub use self::pattern::Pattern;
pub(crate) use self::scan::Scanner;
