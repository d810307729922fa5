//! Caches from pre-token to ids.
//!
//! | | per thread | shared by all threads |
//! |---|---|---|
//! | up to 15 bytes and 12 ids | `thread.rs`, 4 MiB | `shared.rs`, 64 MiB |
//! | longer | `thread_long.rs`, 4 MiB and a map | `shared_long.rs`, 12 MiB |
//!
//! 1. Words repeat. A hit saves looking up every pair of a word and merging it. Most hits are in
//!    the thread's own cache, which stays in the L2 cache of its core.
//! 2. The entry of a short pre-token is one cache line, which includes the pre-token itself. So a
//!    hit is exact and touches no other memory, and nothing is allocated per pre-token.
//! 3. In a thread's table a new entry replaces the old one. In the shared tables an entry is
//!    written once and stays (`write_once.rs`), so that readers need no lock.
//! 4. All tables are in huge pages (`huge_page_table.rs`). Accesses are random, and with 4 KiB
//!    pages nearly every one would miss the TLB.
//!
//! The shared caches exist only where much text is expected (`Tokenizer::expect_much_text`).

mod huge_page_table;
mod packed_ids;
mod shared;
mod shared_long;
mod thread;
mod thread_long;
mod write_once;

pub use self::huge_page_table::{HugePageTable, Zeroable};
pub use self::packed_ids::{CACHED_IDS, CACHED_VOCAB, FEW_IDS, PackedIds};
pub use self::shared_long::LongKey;
pub use self::thread::ThreadCache;
pub use self::thread_long::ThreadLongCache;

use self::shared::SharedCache;
use self::shared_long::SharedLongCache;

/// The caches that all threads share.
#[derive(Debug)]
pub struct SharedCaches {
    pub short: SharedCache,
    pub long: SharedLongCache,
}

impl SharedCaches {
    /// Creates empty caches; returns `None` if there is not enough memory.
    pub fn new() -> Option<Self> {
        Some(Self { short: SharedCache::new()?, long: SharedLongCache::new()? })
    }
}
