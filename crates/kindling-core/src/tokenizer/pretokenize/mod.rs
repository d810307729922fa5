//! Splitting text into pre-tokens, the pieces (mostly words) whose borders no merge crosses.
//!
//! | file | holds |
//! |---|---|
//! | `pattern.rs` | [`Pattern`]: a named pattern or any regular expression |
//! | `oniguruma.rs` | the quantifiers that Hugging Face's regex engine reads differently |
//! | `gpt2.rs`, `cl100k.rs` | hand-written code for the named patterns, one pre-token at a time |
//! | `scan.rs`, `masks.rs` | GPT-2's and SmolLM's patterns by bitmasks, 64 bytes at a time |
//! | `key.rs` | a pre-token of up to 15 bytes packed into two words |
//! | `unicode.rs`, `unicode_ranges.rs` | `\p{L}`, `\p{N}` and `\s` |

mod cl100k;
mod gpt2;
mod key;
mod masks;
mod oniguruma;
mod pattern;
mod scan;
mod unicode;
mod unicode_ranges;

pub use self::gpt2::pretokens;
pub(crate) use self::key::{MAX_KEY_BYTES, PretokenKey};
pub use self::pattern::Pattern;
pub(crate) use self::scan::Scanner;
