//! A block of 32 x 32 by AMX-BF16: four tiles of sums, two of a and two of b, 16 rows of 64 bytes each.
//!
//! `tdpbf16ps` sum, a, b: sum[i][j] += a[i][2p] b[p][2j] + a[i][2p + 1] b[p][2j + 1] for each of 16 p, which is what our pairs
//! are. The kernel is written over the few tile instructions it needs; `Amx` issues them, `Plain` does their arithmetic in
//! plain code after the description in Intel's Architecture Instruction Set Extensions Reference, chapter 3, so that
//! everything around the instructions is tested on machines without them.

use std::cell::RefCell;

use super::{Block, WIDTH};
use crate::simd::bf16;

/// Rows of a panel of a.
pub(super) const ROWS: usize = 32;
/// Pairs along k of one tile.
pub(super) const PAIRS: usize = 16;
/// Rows, and f32 of a row, of a tile.
const SIDE: usize = 16;
/// Words of a tile.
const WORDS: usize = SIDE * SIDE;

/// The tile instructions, on tiles 0..8.
pub(super) trait Tiles {
    /// Sets up eight tiles of 16 rows of 64 bytes, where this thread has not done so.
    fn configure();
    /// Tile `TILE` = 0.
    fn zero<const TILE: usize>();
    /// Tile = 16 rows of 16 words, `stride` words apart.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load<const TILE: usize>(from: *const u32, stride: usize);
    /// The reverse of `load`.
    ///
    /// # Safety
    /// They can be written.
    unsafe fn store<const TILE: usize>(to: *mut u32, stride: usize);
    /// Tile `SUM` += tile `A` x tile `B`.
    fn dot<const SUM: usize, const A: usize, const B: usize>();
}

/// block = a b (or +=) for a panel of a in the order of tiles, and one of b, [pair][column].
///
/// # Safety
/// The machine has the instructions of `T`, and the block may be written.
pub(super) unsafe fn multiply<T: Tiles>(a: &[u32], b: &[u32], block: Block) {
    T::configure();
    let whole = block.rows == ROWS && block.columns == WIDTH;
    // A block at the edge is computed beside it and copied.
    let mut beside = [0f32; ROWS * WIDTH];
    let (sums, stride) =
        if whole { (block.address, block.stride) } else { (beside.as_mut_ptr(), WIDTH) };
    if !whole && block.accumulate {
        for row in 0..block.rows {
            // SAFETY: a row of the block.
            let from = unsafe {
                std::slice::from_raw_parts(block.address.add(row * block.stride), block.columns)
            };
            beside[row * WIDTH..][..block.columns].copy_from_slice(from);
        }
    }
    let quarter = |row: usize, column: usize| {
        sums.wrapping_add(row * SIDE * stride + column * SIDE).cast::<u32>()
    };
    // SAFETY: the quarters of the block or of `beside`; panels of whole tiles.
    unsafe {
        if block.accumulate {
            T::load::<0>(quarter(0, 0), stride);
            T::load::<1>(quarter(0, 1), stride);
            T::load::<2>(quarter(1, 0), stride);
            T::load::<3>(quarter(1, 1), stride);
        } else {
            T::zero::<0>();
            T::zero::<1>();
            T::zero::<2>();
            T::zero::<3>();
        }
        for (a, b) in a.chunks_exact(2 * WORDS).zip(b.chunks_exact(PAIRS * WIDTH)) {
            T::load::<4>(a.as_ptr(), SIDE);
            T::load::<6>(b.as_ptr(), WIDTH);
            T::load::<7>(b.as_ptr().add(SIDE), WIDTH);
            T::dot::<0, 4, 6>();
            T::dot::<1, 4, 7>();
            T::load::<5>(a.as_ptr().add(WORDS), SIDE);
            T::dot::<2, 5, 6>();
            T::dot::<3, 5, 7>();
        }
        T::store::<0>(quarter(0, 0), stride);
        T::store::<1>(quarter(0, 1), stride);
        T::store::<2>(quarter(1, 0), stride);
        T::store::<3>(quarter(1, 1), stride);
    }
    if !whole {
        for row in 0..block.rows {
            // SAFETY: a row of the block.
            let to = unsafe {
                std::slice::from_raw_parts_mut(block.address.add(row * block.stride), block.columns)
            };
            to.copy_from_slice(&beside[row * WIDTH..][..block.columns]);
        }
    }
}

thread_local! {
    static PLAIN: RefCell<[[u32; WORDS]; 8]> = const { RefCell::new([[0; WORDS]; 8]) };
}

/// The instructions' arithmetic in plain code, on tiles of the calling thread.
pub(super) struct Plain;

impl Tiles for Plain {
    fn configure() {}

    fn zero<const TILE: usize>() {
        PLAIN.with(|tiles| tiles.borrow_mut()[TILE] = [0; WORDS]);
    }

    unsafe fn load<const TILE: usize>(from: *const u32, stride: usize) {
        PLAIN.with(|tiles| {
            for (row, words) in tiles.borrow_mut()[TILE].chunks_exact_mut(SIDE).enumerate() {
                // SAFETY: the caller's promise.
                words.copy_from_slice(unsafe {
                    std::slice::from_raw_parts(from.add(row * stride), SIDE)
                });
            }
        });
    }

    unsafe fn store<const TILE: usize>(to: *mut u32, stride: usize) {
        PLAIN.with(|tiles| {
            for (row, words) in tiles.borrow()[TILE].chunks_exact(SIDE).enumerate() {
                // SAFETY: the caller's promise.
                unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), SIDE) }
                    .copy_from_slice(words);
            }
        });
    }

    fn dot<const SUM: usize, const A: usize, const B: usize>() {
        PLAIN.with(|tiles| {
            let mut tiles = tiles.borrow_mut();
            let (a, b) = (tiles[A], tiles[B]);
            let halves = |word: u32| (bf16::widen(word as u16), bf16::widen((word >> 16) as u16));
            for i in 0..SIDE {
                // First elements of pairs and second ones have sums of their own, added at the end.
                let mut sums = [(0f32, 0f32); SIDE];
                for (pair, &left) in a[i * SIDE..(i + 1) * SIDE].iter().enumerate() {
                    let (first, second) = halves(left);
                    for (sums, &word) in sums.iter_mut().zip(&b[pair * SIDE..(pair + 1) * SIDE]) {
                        let (up, down) = halves(word);
                        *sums = (first.mul_add(up, sums.0), second.mul_add(down, sums.1));
                    }
                }
                for (word, sums) in tiles[SUM][i * SIDE..(i + 1) * SIDE].iter_mut().zip(sums) {
                    *word = (f32::from_bits(*word) + (sums.0 + sums.1)).to_bits();
                }
            }
        });
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use amx::{Amx, agree_with_plain, are_available, release};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::asm;
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::{PAIRS, Plain, ROWS, Tiles, WIDTH, multiply};
    use crate::ops::matmul::packed::Block;
    use crate::simd::bf16;

    /// The processor's tiles.
    pub(in crate::ops::matmul::packed) struct Amx;

    /// Whether the processor has AMX-BF16, the system lends it to this process, and it computes what `Plain` does.
    pub(in crate::ops::matmul::packed) fn are_available() -> bool {
        static AVAILABLE: LazyLock<bool> =
            LazyLock::new(|| has_instructions() && is_permitted() && agree_with_plain());
        *AVAILABLE
    }

    /// CPUID leaf 7: EDX bit 22 (amx-bf16) and 24 (amx-tile); XCR0 bits 17 and 18: the system saves the tiles.
    fn has_instructions() -> bool {
        const INSTRUCTIONS: u32 = 1 << 22 | 1 << 24;
        const STATE: u64 = 1 << 17 | 1 << 18;
        let highest = std::arch::x86_64::__cpuid(0).eax;
        bf16::is_available()
            && highest >= 7
            && std::arch::x86_64::__cpuid_count(7, 0).edx & INSTRUCTIONS == INSTRUCTIONS
            // SAFETY: a system that saves the registers of AVX-512 has XGETBV.
            && unsafe { std::arch::x86_64::_xgetbv(0) } & STATE == STATE
    }

    /// Linux lends the tiles' large state on request: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
    fn is_permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call takes two numbers and changes only what the process may use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    /// A product of small whole numbers, exact in bf16 and f32, on both.
    pub(in crate::ops::matmul::packed) fn agree_with_plain() -> bool {
        let word = |i: usize| bf16::pair((i % 7) as f32 - 3.0, (i % 5) as f32 - 2.0);
        let a: Vec<u32> = (0..2 * PAIRS * ROWS).map(word).collect();
        let b: Vec<u32> = (0..2 * PAIRS * WIDTH).map(|i| word(i + i / 11)).collect();
        let mut outs = [[1f32; ROWS * WIDTH]; 2];
        for (index, out) in outs.iter_mut().enumerate() {
            let address = out.as_mut_ptr();
            let block =
                Block { address, stride: WIDTH, rows: ROWS, columns: WIDTH, accumulate: true };
            // SAFETY: the block is all of `out`; the instructions are there.
            unsafe {
                if index == 0 {
                    multiply::<Amx>(&a, &b, block)
                } else {
                    multiply::<Plain>(&a, &b, block)
                }
            }
        }
        release();
        outs[0] == outs[1]
    }

    thread_local! {
        static CONFIGURED: Cell<bool> = const { Cell::new(false) };
    }

    /// Palette 1: eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_a_row: [u16; 16],
        rows: [u8; 16],
    }

    /// Gives this thread's tiles back, so that a switch of threads need not save them.
    pub(in crate::ops::matmul::packed) fn release() {
        if CONFIGURED.replace(false) {
            // SAFETY: the tiles were configured by this thread.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    impl Tiles for Amx {
        fn configure() {
            if CONFIGURED.replace(true) {
                return;
            }
            let mut configuration = Configuration {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                bytes_a_row: [0; 16],
                rows: [0; 16],
            };
            configuration.bytes_a_row[..8].fill(64);
            configuration.rows[..8].fill(16);
            // SAFETY: 64 bytes in the instruction's layout, on a machine that has it.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly))
            };
        }

        fn zero<const TILE: usize>() {
            // SAFETY: the tiles are configured; the compiler uses none itself.
            unsafe {
                match TILE {
                    0 => asm!("tilezero tmm0", options(nostack, nomem)),
                    1 => asm!("tilezero tmm1", options(nostack, nomem)),
                    2 => asm!("tilezero tmm2", options(nostack, nomem)),
                    _ => asm!("tilezero tmm3", options(nostack, nomem)),
                }
            }
        }

        unsafe fn load<const TILE: usize>(from: *const u32, stride: usize) {
            macro_rules! load {
                ($tile:literal) => {
                    asm!(concat!("tileloadd tmm", $tile, ", [{from} + {stride}]"),
                        from = in(reg) from, stride = in(reg) 4 * stride, options(nostack, readonly))
                };
            }
            // SAFETY: as in `zero`; the memory is the caller's promise.
            unsafe {
                match TILE {
                    0 => load!("0"),
                    1 => load!("1"),
                    2 => load!("2"),
                    3 => load!("3"),
                    4 => load!("4"),
                    5 => load!("5"),
                    6 => load!("6"),
                    _ => load!("7"),
                }
            }
        }

        unsafe fn store<const TILE: usize>(to: *mut u32, stride: usize) {
            macro_rules! store {
                ($tile:literal) => {
                    asm!(concat!("tilestored [{to} + {stride}], tmm", $tile),
                        to = in(reg) to, stride = in(reg) 4 * stride, options(nostack))
                };
            }
            // SAFETY: as in `load`.
            unsafe {
                match TILE {
                    0 => store!("0"),
                    1 => store!("1"),
                    2 => store!("2"),
                    _ => store!("3"),
                }
            }
        }

        fn dot<const SUM: usize, const A: usize, const B: usize>() {
            // SAFETY: as in `zero`.
            unsafe {
                match (SUM, A, B) {
                    (0, 4, 6) => asm!("tdpbf16ps tmm0, tmm4, tmm6", options(nostack, nomem)),
                    (1, 4, 7) => asm!("tdpbf16ps tmm1, tmm4, tmm7", options(nostack, nomem)),
                    (2, 5, 6) => asm!("tdpbf16ps tmm2, tmm5, tmm6", options(nostack, nomem)),
                    _ => asm!("tdpbf16ps tmm3, tmm5, tmm7", options(nostack, nomem)),
                }
            }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) use Plain as Amx;

/// Other systems lend no tiles.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn are_available() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn release() {}
