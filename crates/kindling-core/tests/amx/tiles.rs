//! Semantics of the instructions, following the pseudocode in volume 2 of Intel's Software
//! Developer's Manual. What raises an exception there is an error here.

use super::instructions::Instruction;

const TILES: usize = 8;
const MAX_ROWS: usize = 16;
const MAX_BYTES: usize = 64;
/// Words in a row.
const WORDS: usize = MAX_BYTES / 4;

#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    bytes: usize,
    words: [[u32; WORDS]; MAX_ROWS],
}

/// The tiles of a thread.
pub struct Machine {
    is_configured: bool,
    tiles: [Tile; TILES],
}

type Outcome = Result<(), &'static str>;

impl Machine {
    pub const fn new() -> Self {
        let tile = Tile { rows: 0, bytes: 0, words: [[0; WORDS]; MAX_ROWS] };
        Self { is_configured: false, tiles: [tile; TILES] }
    }

    /// Executes an instruction.
    ///
    /// # Safety
    /// The memory that the instruction accesses must be valid for it to read or write.
    pub unsafe fn run(&mut self, instruction: Instruction) -> Outcome {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match instruction {
                Instruction::LoadConfiguration(address) => {
                    self.configure(&*(address as *const [u8; 64]))
                }
                Instruction::Release => {
                    *self = Self::new();
                    Ok(())
                }
                Instruction::Zero(tile) => {
                    self.used(tile)?.words = [[0; WORDS]; MAX_ROWS];
                    Ok(())
                }
                Instruction::Load { tile, address, stride }
                | Instruction::LoadStream { tile, address, stride } => {
                    self.load(tile, address, stride)
                }
                Instruction::Store { tile, address, stride } => self.store(tile, address, stride),
                Instruction::Dot { sum, a, b } => self.dot(sum, a, b),
            }
        }
    }

    fn configure(&mut self, bytes: &[u8; 64]) -> Outcome {
        const ROWS: usize = 48;
        *self = Self::new();
        let reserved = [2..16, 32..48, 56..64];
        match bytes[0] {
            0 => return Ok(()),
            1 => {}
            _ => return Err("LDTILECFG: unknown palette"),
        }
        if bytes[1] != 0 || reserved.into_iter().flatten().any(|at| bytes[at] != 0) {
            return Err("LDTILECFG: reserved bytes or the start row are not zero");
        }
        for (index, tile) in self.tiles.iter_mut().enumerate() {
            tile.rows = bytes[ROWS + index].into();
            tile.bytes = u16::from_le_bytes([bytes[16 + 2 * index], bytes[17 + 2 * index]]).into();
            if tile.rows > MAX_ROWS
                || tile.bytes > MAX_BYTES
                || (tile.rows == 0) != (tile.bytes == 0)
            {
                return Err("LDTILECFG: invalid size of a tile");
            }
        }
        self.is_configured = true;
        Ok(())
    }

    fn used(&mut self, tile: usize) -> Result<&mut Tile, &'static str> {
        match &mut self.tiles[tile] {
            _ if !self.is_configured => Err("tiles are not configured"),
            tile if tile.rows == 0 => Err("the tile has no rows"),
            tile => Ok(tile),
        }
    }

    unsafe fn load(&mut self, tile: usize, address: u64, stride: u64) -> Outcome {
        let tile = self.used(tile)?;
        tile.words = [[0; WORDS]; MAX_ROWS];
        for row in 0..tile.rows {
            let from = address.wrapping_add(stride.wrapping_mul(row as u64)) as *const u8;
            // SAFETY: guaranteed by the caller; the copy is one row of the tile.
            unsafe { from.copy_to_nonoverlapping(tile.words[row].as_mut_ptr().cast(), tile.bytes) };
        }
        Ok(())
    }

    unsafe fn store(&mut self, tile: usize, address: u64, stride: u64) -> Outcome {
        let tile = self.used(tile)?;
        for row in 0..tile.rows {
            let to = address.wrapping_add(stride.wrapping_mul(row as u64)) as *mut u8;
            // SAFETY: guaranteed by the caller; the copy is one row of the tile.
            unsafe { to.copy_from_nonoverlapping(tile.words[row].as_ptr().cast(), tile.bytes) };
        }
        Ok(())
    }

    fn dot(&mut self, sum: usize, a: usize, b: usize) -> Outcome {
        if sum == a || sum == b || a == b {
            return Err("TDPBF16PS: operands are not distinct");
        }
        let (left, right, mut out) = (*self.used(a)?, *self.used(b)?, *self.used(sum)?);
        if [&left, &right, &out].iter().any(|tile| tile.bytes % 4 != 0)
            || out.rows != left.rows
            || out.bytes != right.bytes
            || left.bytes / 4 != right.rows
        {
            return Err("TDPBF16PS: sizes do not match");
        }
        let half = |word: u32, index: usize| f32::from_bits(word >> (16 * index) << 16);
        for m in 0..out.rows {
            let mut sums = [[0f32; 2]; WORDS];
            for k in 0..left.bytes / 4 {
                for n in 0..out.bytes / 4 {
                    for index in 0..2 {
                        let (x, y) =
                            (half(left.words[m][k], index), half(right.words[k][n], index));
                        sums[n][index] = flushed(flushed(x).mul_add(flushed(y), sums[n][index]));
                    }
                }
            }
            for n in 0..out.bytes / 4 {
                let both = flushed(sums[n][0] + sums[n][1]);
                let sum = flushed(f32::from_bits(out.words[m][n]));
                out.words[m][n] = flushed(sum + both).to_bits();
            }
        }
        self.tiles[sum] = out;
        Ok(())
    }
}

/// Replaces denormals with zeros.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

#[test]
fn tiles_follow_sizes_other_than_those_of_the_kernel() {
    let mut machine = Machine::new();
    let mut configuration = [0u8; 64];
    // Tile 0 has 2 x 3 sums, tile 1 has 2 x 2 pairs, tile 2 has 2 pairs x 3.
    configuration[0] = 1;
    configuration[16..22].copy_from_slice(&[12, 0, 8, 0, 12, 0]);
    configuration[48..51].copy_from_slice(&[2, 2, 2]);
    let pair = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits();
    let a = [pair(1.0, 2.0), pair(3.0, 4.0), pair(5.0, 6.0), pair(7.0, 8.0)];
    let b = [
        pair(1.0, 0.0),
        pair(0.0, 1.0),
        pair(1.0, 1.0),
        pair(2.0, 0.0),
        pair(0.0, 2.0),
        pair(2.0, 2.0),
    ];
    let mut out = [10f32; 8];
    let instructions = [
        Instruction::LoadConfiguration(configuration.as_ptr() as u64),
        Instruction::Load { tile: 0, address: out.as_ptr() as u64, stride: 16 },
        Instruction::Load { tile: 1, address: a.as_ptr() as u64, stride: 8 },
        Instruction::Load { tile: 2, address: b.as_ptr() as u64, stride: 12 },
        Instruction::Dot { sum: 0, a: 1, b: 2 },
        Instruction::Store { tile: 0, address: out.as_mut_ptr() as u64, stride: 16 },
    ];
    for instruction in instructions {
        // SAFETY: the arrays have the sizes of the tiles.
        assert_eq!(unsafe { machine.run(instruction) }, Ok(()), "{instruction:?}");
    }
    // Row 0: (1 + 6, 2 + 8, 3 + 14); row 1: (5 + 14, 6 + 16, 11 + 30).
    assert_eq!(out, [17.0, 20.0, 27.0, 10.0, 29.0, 32.0, 51.0, 10.0]);
    // SAFETY: none of these accesses memory.
    unsafe {
        assert!(machine.run(Instruction::Dot { sum: 0, a: 2, b: 1 }).is_err());
        assert!(machine.run(Instruction::Dot { sum: 0, a: 1, b: 1 }).is_err());
        assert!(machine.run(Instruction::Zero(3)).is_err());
        assert_eq!(machine.run(Instruction::Release), Ok(()));
        assert!(machine.run(Instruction::Zero(0)).is_err());
    }
}
