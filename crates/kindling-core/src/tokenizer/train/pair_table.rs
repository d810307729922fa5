//! Pairs of tokens with their counts and the words they stand in, for learning merges.
//!
//! The words of all pairs are one pool of linked nodes: a pair is a head, and lists are joined, freed and used again without
//! an allocation for any of them.

/// No node, or no pair.
pub const NONE: u32 = u32::MAX;
const EMPTY: u64 = u64::MAX;

/// Two tokens.
pub type Pair = (u32, u32);

/// A pair that was seen. It stays in the table at count 0.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    key: u64,
    /// How often it occurs.
    pub count: u64,
    /// First node of its words.
    head: u32,
}

const FREE: Slot = Slot { key: EMPTY, count: 0, head: NONE };

fn key(pair: Pair) -> u64 {
    u64::from(pair.0) << 32 | u64::from(pair.1)
}

/// Words, as lists of nodes. A word may stand in a list that it has left since.
#[derive(Debug)]
pub struct Lists {
    /// Word and next node.
    nodes: Vec<(u32, u32)>,
    /// First node that can be used again.
    free: u32,
}

impl Lists {
    /// `head` with `word` before it.
    #[inline]
    pub fn push(&mut self, head: u32, word: u32) -> u32 {
        if self.free == NONE {
            self.nodes.push((word, head));
            return self.nodes.len() as u32 - 1;
        }
        let node = self.free;
        self.free = self.nodes[node as usize].1;
        self.nodes[node as usize] = (word, head);
        node
    }

    /// The word the list begins with.
    #[inline]
    pub fn first(&self, head: u32) -> Option<u32> {
        self.nodes.get(head as usize).map(|node| node.0)
    }

    /// `head` with `list` before it.
    fn join(&mut self, head: u32, list: u32) -> u32 {
        if head == NONE || list == NONE {
            return if list == NONE { head } else { list };
        }
        let mut last = list;
        while self.nodes[last as usize].1 != NONE {
            last = self.nodes[last as usize].1;
        }
        self.nodes[last as usize].1 = head;
        list
    }

    /// Moves the words of a list to `words`, and frees its nodes.
    fn take(&mut self, head: u32, words: &mut Vec<u32>) {
        let mut at = head;
        while at != NONE {
            let (word, next) = self.nodes[at as usize];
            words.push(word);
            self.nodes[at as usize].1 = self.free;
            self.free = at;
            at = next;
        }
    }
}

/// The pairs: open addressing, at most half full.
#[derive(Debug)]
pub struct PairTable {
    slots: Vec<Slot>,
    used: usize,
    /// The words of all pairs.
    pub lists: Lists,
}

impl PairTable {
    /// No pair yet.
    pub fn new() -> Self {
        let lists = Lists { nodes: Vec::new(), free: NONE };
        Self { slots: vec![FREE; 1 << 16], used: 0, lists }
    }

    #[inline]
    fn place(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = (hash >> (64 - self.slots.len().trailing_zeros())) as usize;
        while self.slots[at].key != key && self.slots[at].key != EMPTY {
            at = (at + 1) & mask;
        }
        at
    }

    /// How often a pair occurs.
    pub fn count(&self, pair: Pair) -> u64 {
        self.slots[self.place(key(pair))].count
    }

    /// Adds occurrences of a pair in the words of `list`; gives the new count.
    pub fn add(&mut self, pair: Pair, count: u64, list: u32) -> u64 {
        let mut place = self.place(key(pair));
        if self.slots[place].key == EMPTY {
            self.used += 1;
            if self.used * 2 > self.slots.len() {
                self.grow();
                place = self.place(key(pair));
            }
            self.slots[place].key = key(pair);
        }
        let slot = &mut self.slots[place];
        slot.count += count;
        slot.head = self.lists.join(slot.head, list);
        slot.count
    }

    /// Adds one word's occurrences of a pair, the words in ascending order.
    pub fn add_word(&mut self, pair: Pair, count: u64, word: u32) {
        let head = self.slots[self.place(key(pair))].head;
        let known = head != NONE && self.lists.first(head) == Some(word);
        let list = if known { NONE } else { self.lists.push(NONE, word) };
        self.add(pair, count, list);
    }

    /// Takes occurrences away. A pair that `take` took has none left, though words may still hold it.
    pub fn subtract(&mut self, pair: Pair, count: u64) {
        let place = self.place(key(pair));
        let slot = &mut self.slots[place];
        slot.count = slot.count.saturating_sub(count);
    }

    /// Takes all occurrences of a pair away, and moves its words to `words`, each once.
    pub fn take(&mut self, pair: Pair, words: &mut Vec<u32>) {
        let place = self.place(key(pair));
        let head = std::mem::replace(&mut self.slots[place].head, NONE);
        self.slots[place].count = 0;
        self.lists.take(head, words);
    }

    /// Pairs that occur, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Pair, u64)> + '_ {
        let occurs = |slot: &&Slot| slot.count > 0;
        self.slots
            .iter()
            .filter(occurs)
            .map(|slot| (((slot.key >> 32) as u32, slot.key as u32), slot.count))
    }

    /// Doubles the table; pairs that no longer occur stay behind.
    #[cold]
    fn grow(&mut self) {
        let live = self.slots.iter().filter(|slot| slot.count > 0).count();
        let length =
            if live * 4 > self.slots.len() { self.slots.len() * 2 } else { self.slots.len() };
        let old = std::mem::replace(&mut self.slots, vec![FREE; length]);
        self.used = live + 1;
        for slot in old {
            if slot.count > 0 {
                let place = self.place(slot.key);
                self.slots[place] = slot;
            } else if slot.head != NONE {
                self.lists.take(slot.head, &mut Vec::new());
            }
        }
    }
}
