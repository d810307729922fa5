//! The tile instructions of AMX-BF16 that matrix products use.
//!
//! A tile is a register of 16 rows of 64 bytes. `tdpbf16ps sum, a, b` multiplies pairs of bf16:
//!
//! ```text
//! sum[i][j] += a[i][2 p] * b[p][2 j] + a[i][2 p + 1] * b[p][2 j + 1]      for each p in 0..16
//! ```
//!
//! `Amx` issues the instructions. `EmulatedAmx` does their arithmetic in plain code, after the
//! description in Intel's Architecture Instruction Set Extensions Reference, chapter 3, so that
//! code generic over `Tiles` is tested on machines without them.

use std::cell::RefCell;

use crate::simd::bf16;

/// Rows of a tile, and 32-bit words in a row.
pub(crate) const TILE_SIDE: usize = 16;
/// Words in a tile.
pub(crate) const TILE_WORDS: usize = TILE_SIDE * TILE_SIDE;

/// The instructions, on the calling thread's tiles 0..8.
pub(crate) trait Tiles {
    /// Configures eight tiles of 16 rows of 64 bytes, unless this thread has done so.
    fn configure();
    /// Sets a tile to zero.
    fn zero<const TILE: usize>();
    /// Loads 16 rows of 16 words whose starts are `stride` words apart.
    ///
    /// # Safety
    /// The rows can be read.
    unsafe fn load<const TILE: usize>(from: *const u32, stride: usize);
    /// Like `load`, for rows that are used once: they need not stay in L1.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn load_stream<const TILE: usize>(from: *const u32, stride: usize);
    /// Stores 16 rows of 16 words whose starts are `stride` words apart.
    ///
    /// # Safety
    /// The rows can be written.
    unsafe fn store<const TILE: usize>(to: *mut u32, stride: usize);
    /// Adds the product of tiles `A` and `B` to tile `SUM`.
    ///
    /// Sums are tiles 0 to 3, A is 4 or 5, B is 6 or 7, and SUM = 2 (A - 4) + (B - 6).
    fn dot<const SUM: usize, const A: usize, const B: usize>();
}

thread_local! {
    static EMULATED_TILES: RefCell<[[u32; TILE_WORDS]; 8]> =
        const { RefCell::new([[0; TILE_WORDS]; 8]) };
}

/// The arithmetic of the instructions in plain code.
pub(crate) struct EmulatedAmx;

impl Tiles for EmulatedAmx {
    fn configure() {}

    fn zero<const TILE: usize>() {
        EMULATED_TILES.with(|tiles| tiles.borrow_mut()[TILE] = [0; TILE_WORDS]);
    }

    unsafe fn load<const TILE: usize>(from: *const u32, stride: usize) {
        EMULATED_TILES.with(|tiles| {
            for (row, words) in tiles.borrow_mut()[TILE].chunks_exact_mut(TILE_SIDE).enumerate() {
                // SAFETY: by the caller's promise.
                words.copy_from_slice(unsafe {
                    std::slice::from_raw_parts(from.add(row * stride), TILE_SIDE)
                });
            }
        });
    }

    unsafe fn load_stream<const TILE: usize>(from: *const u32, stride: usize) {
        // SAFETY: by the caller's promise.
        unsafe { Self::load::<TILE>(from, stride) };
    }

    unsafe fn store<const TILE: usize>(to: *mut u32, stride: usize) {
        EMULATED_TILES.with(|tiles| {
            for (row, words) in tiles.borrow()[TILE].chunks_exact(TILE_SIDE).enumerate() {
                // SAFETY: by the caller's promise.
                unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), TILE_SIDE) }
                    .copy_from_slice(words);
            }
        });
    }

    fn dot<const SUM: usize, const A: usize, const B: usize>() {
        EMULATED_TILES.with(|tiles| {
            let mut tiles = tiles.borrow_mut();
            let (a, b) = (tiles[A], tiles[B]);
            let halves = |word: u32| (bf16::widen(word as u16), bf16::widen((word >> 16) as u16));
            for i in 0..TILE_SIDE {
                // The first and the second elements of pairs are summed separately, and added at
                // the end.
                let mut sums = [(0f32, 0f32); TILE_SIDE];
                let a_row = &a[i * TILE_SIDE..(i + 1) * TILE_SIDE];
                for (&a_pair, b_row) in a_row.iter().zip(b.chunks_exact(TILE_SIDE)) {
                    let (a_first, a_second) = halves(a_pair);
                    for (sums, &b_pair) in sums.iter_mut().zip(b_row) {
                        let (b_first, b_second) = halves(b_pair);
                        *sums =
                            (a_first.mul_add(b_first, sums.0), a_second.mul_add(b_second, sums.1));
                    }
                }
                let sum_row = &mut tiles[SUM][i * TILE_SIDE..(i + 1) * TILE_SIDE];
                for (word, sums) in sum_row.iter_mut().zip(sums) {
                    *word = (f32::from_bits(*word) + (sums.0 + sums.1)).to_bits();
                }
            }
        });
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use linux::{Amx, can_use, release};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::asm;
    use std::cell::Cell;

    use super::{Tiles, bf16};

    /// The instructions of the processor.
    pub(crate) struct Amx;

    /// Returns whether the processor has AMX-BF16 and the system lets this process use it.
    pub(crate) fn can_use() -> bool {
        has_instructions() && request_permission()
    }

    /// Reads CPUID leaf 7 (EDX bit 22: amx-bf16, bit 24: amx-tile) and XCR0 (bits 17 and 18: the
    /// system saves the tiles).
    fn has_instructions() -> bool {
        const INSTRUCTIONS: u32 = 1 << 22 | 1 << 24;
        const STATE: u64 = 1 << 17 | 1 << 18;
        let highest_leaf = std::arch::x86_64::__cpuid(0).eax;
        bf16::is_available()
            && highest_leaf >= 7
            && std::arch::x86_64::__cpuid_count(7, 0).edx & INSTRUCTIONS == INSTRUCTIONS
            // SAFETY: a system that saves the registers of AVX-512 has enabled XGETBV.
            && unsafe { std::arch::x86_64::_xgetbv(0) } & STATE == STATE
    }

    /// Requests the tiles from Linux, which saves their large state only for processes that ask:
    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
    fn request_permission() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call takes two numbers and changes only what the process may use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    thread_local! {
        static CONFIGURED: Cell<bool> = const { Cell::new(false) };
    }

    /// The operand of `ldtilecfg`, palette 1.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    /// Releases this thread's tiles, so that a context switch need not save them.
    pub(crate) fn release() {
        if CONFIGURED.replace(false) {
            // SAFETY: the tiles were configured by this thread.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    /// Issues a load of tile `$tile`, which is one of `$number`.
    macro_rules! load {
        ($instruction:literal, $tile:ident, $from:ident, $stride:ident, $($number:literal)*) => {
            match $tile {
                // SAFETY: the tiles are configured; the caller promises the memory.
                $($number => unsafe {
                    asm!(concat!($instruction, " tmm", $number, ", [{from} + {stride}]"),
                        from = in(reg) $from, stride = in(reg) 4 * $stride,
                        options(nostack, readonly))
                },)*
                _ => unreachable!("no kernel loads such a tile"),
            }
        };
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
                bytes_per_row: [0; 16],
                rows: [0; 16],
            };
            configuration.bytes_per_row[..8].fill(64);
            configuration.rows[..8].fill(16);
            // SAFETY: 64 bytes in the instruction's layout, on a machine that has it.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
            }
        }

        #[inline(always)]
        fn zero<const TILE: usize>() {
            // SAFETY: the tiles are configured, and the compiler uses none itself.
            unsafe {
                match TILE {
                    0 => asm!("tilezero tmm0", options(nostack, nomem)),
                    1 => asm!("tilezero tmm1", options(nostack, nomem)),
                    2 => asm!("tilezero tmm2", options(nostack, nomem)),
                    _ => asm!("tilezero tmm3", options(nostack, nomem)),
                }
            }
        }

        #[inline(always)]
        unsafe fn load<const TILE: usize>(from: *const u32, stride: usize) {
            load!("tileloadd", TILE, from, stride, 0 1 2 3 4 5 6 7);
        }

        #[inline(always)]
        unsafe fn load_stream<const TILE: usize>(from: *const u32, stride: usize) {
            load!("tileloaddt1", TILE, from, stride, 4 5);
        }

        #[inline(always)]
        unsafe fn store<const TILE: usize>(to: *mut u32, stride: usize) {
            macro_rules! store {
                ($tile:literal) => {
                    asm!(concat!("tilestored [{to} + {stride}], tmm", $tile),
                        to = in(reg) to, stride = in(reg) 4 * stride, options(nostack))
                };
            }
            // SAFETY: as in `zero`; the caller promises the memory.
            unsafe {
                match TILE {
                    0 => store!("0"),
                    1 => store!("1"),
                    2 => store!("2"),
                    _ => store!("3"),
                }
            }
        }

        #[inline(always)]
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
pub(crate) use EmulatedAmx as Amx;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) fn release() {}
