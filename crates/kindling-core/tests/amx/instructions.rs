//! Decodes the AMX-TILE and AMX-BF16 instructions that the kernel uses.
//!
//! Source: Intel's Software Developer's Manual, volume 2: chapter 2 for the VEX prefix and `ModRM`,
//! and LDTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILESTORED and TDPBF16PS.

/// An instruction, with addresses computed from the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Reads 64 bytes of configuration.
    LoadConfiguration(u64),
    Release,
    Zero(usize),
    /// Loads rows that are `stride` bytes apart, the first at `address`.
    Load {
        tile: usize,
        address: u64,
        stride: u64,
    },
    /// Like `Load`, with a hint that the rows are used only once.
    LoadStream {
        tile: usize,
        address: u64,
        stride: u64,
    },
    Store {
        tile: usize,
        address: u64,
        stride: u64,
    },
    /// Computes sum += a b.
    Dot {
        sum: usize,
        a: usize,
        b: usize,
    },
}

/// The prefix VEX.128.0F38.W0. Bits that the encoding inverts are stored uninverted.
struct Prefix {
    /// Bit 3 of `ModRM`.reg, as 8 or 0. `index` has that of SIB.index, `base` that of `ModRM`.rm or
    /// SIB.base.
    reg: usize,
    index: usize,
    base: usize,
    vvvv: usize,
    /// The implied prefix: 0 is none, 1 is 66, 2 is F3, 3 is F2.
    simd: u8,
}

impl Prefix {
    fn of(bytes: [u8; 3]) -> Option<Self> {
        const THREE_BYTES: u8 = 0xC4;
        const MAP_0F38: u8 = 2;
        let [escape, first, second] = bytes;
        let (wide, length) = (second >> 7, second >> 2 & 1);
        if escape != THREE_BYTES || first & 0x1F != MAP_0F38 || wide != 0 || length != 0 {
            return None;
        }
        let extension = |bit: u8| if first >> bit & 1 == 0 { 8 } else { 0 };
        let vvvv = usize::from(!second >> 3 & 0xF);
        Some(Self {
            reg: extension(7),
            index: extension(6),
            base: extension(5),
            vvvv,
            simd: second & 3,
        })
    }
}

/// The memory operand that `ModRM` encodes.
struct Memory {
    /// Base and displacement.
    address: u64,
    /// Scaled index; `None` without a SIB byte.
    index: Option<u64>,
    /// Bytes of `ModRM`, SIB and displacement.
    len: usize,
}

/// Decodes the instruction at the start of `code` and returns it with its length, or `None` for any
/// other instruction. `registers` are rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi and r8 to r15.
pub fn decode(code: &[u8; 16], registers: &[u64; 16]) -> Option<(Instruction, usize)> {
    const BEFORE_MODRM: usize = 4;
    let prefix = Prefix::of([code[0], code[1], code[2]])?;
    let (opcode, modrm) = (code[3], code[BEFORE_MODRM]);
    let (mode, rm) = (modrm >> 6, usize::from(modrm & 7));
    // There are eight tiles, so a fourth bit is an error.
    let tile = |number: usize| (number < 8).then_some(number);
    let reg = prefix.reg | usize::from(modrm >> 3 & 7);
    if (opcode, prefix.simd) == (0x5C, 2) {
        let dot =
            Instruction::Dot { sum: tile(reg)?, a: tile(prefix.base | rm)?, b: tile(prefix.vvvv)? };
        return (mode == 3).then_some((dot, BEFORE_MODRM + 1));
    }
    if prefix.vvvv != 0 {
        return None;
    }
    if mode == 3 {
        return match (opcode, prefix.simd, reg, rm) {
            (0x49, 0, 0, 0) => Some((Instruction::Release, BEFORE_MODRM + 1)),
            (0x49, 3, reg, 0) => Some((Instruction::Zero(tile(reg)?), BEFORE_MODRM + 1)),
            _ => None,
        };
    }
    let memory = memory(&code[BEFORE_MODRM..], &prefix, registers)?;
    let Memory { address, index, len } = memory;
    let instruction = match (opcode, prefix.simd) {
        (0x49, 0) if reg == 0 => {
            Instruction::LoadConfiguration(address.wrapping_add(index.unwrap_or(0)))
        }
        // These require a SIB byte.
        (0x4B, 1) => Instruction::LoadStream { tile: tile(reg)?, address, stride: index? },
        (0x4B, 3) => Instruction::Load { tile: tile(reg)?, address, stride: index? },
        (0x4B, 2) => Instruction::Store { tile: tile(reg)?, address, stride: index? },
        _ => return None,
    };
    Some((instruction, BEFORE_MODRM + len))
}

fn memory(code: &[u8], prefix: &Prefix, registers: &[u64; 16]) -> Option<Memory> {
    const SIB: u8 = 4;
    /// As the base with mode 0: relative to rip, or no base.
    const NO_BASE: u8 = 5;
    /// As the index: no index.
    const NO_INDEX: usize = 4;
    let (mode, rm) = (code[0] >> 6, code[0] & 7);
    let (base, index, mut len) = if rm == SIB {
        let index = prefix.index | usize::from(code[1] >> 3 & 7);
        let scaled = if index == NO_INDEX { 0 } else { registers[index] << (code[1] >> 6) };
        (code[1] & 7, Some(scaled), 2)
    } else {
        (rm, None, 1)
    };
    if mode == 0 && base == NO_BASE {
        return None;
    }
    let displacement = match mode {
        0 => 0,
        1 => i64::from(code[len].cast_signed()),
        _ => i64::from(i32::from_le_bytes(code[len..len + 4].try_into().ok()?)),
    };
    len += [0, 1, 4][usize::from(mode)];
    let address = registers[prefix.base | usize::from(base)].wrapping_add_signed(displacement);
    Some(Memory { address, index, len })
}

/// The encodings come from LLVM's assembler.
#[test]
fn instructions_are_decoded_with_every_addressing_mode() {
    let registers = std::array::from_fn(|i| 0x1000 * (i as u64 + 1));
    let load = |tile, address, stride| Instruction::Load { tile, address, stride };
    let store = |tile, address, stride| Instruction::Store { tile, address, stride };
    let cases: [(&[u8], Instruction); 13] = [
        // ldtilecfg [rcx], [r12], [rbp + 8]
        (&[0xC4, 0xE2, 0x78, 0x49, 0x01], Instruction::LoadConfiguration(0x2000)),
        (&[0xC4, 0xC2, 0x78, 0x49, 0x04, 0x24], Instruction::LoadConfiguration(0xD000)),
        (&[0xC4, 0xE2, 0x78, 0x49, 0x45, 0x08], Instruction::LoadConfiguration(0x6008)),
        (&[0xC4, 0xE2, 0x78, 0x49, 0xC0], Instruction::Release),
        // tilezero tmm3
        (&[0xC4, 0xE2, 0x7B, 0x49, 0xD8], Instruction::Zero(3)),
        // tileloadd tmm5, [rsi + rdx]
        (&[0xC4, 0xE2, 0x7B, 0x4B, 0x2C, 0x16], load(5, 0x7000, 0x3000)),
        // tileloadd tmm6, [r13 + 4 * r9]
        (&[0xC4, 0x82, 0x7B, 0x4B, 0x74, 0x8D, 0x00], load(6, 0xE000, 0x28000)),
        // tileloadd tmm7, [rax - 64], without an index: all rows at one address
        (&[0xC4, 0xE2, 0x7B, 0x4B, 0x7C, 0x20, 0xC0], load(7, 0xFC0, 0)),
        // tileloaddt1 tmm4, [rdi + r8]
        (
            &[0xC4, 0xA2, 0x79, 0x4B, 0x24, 0x07],
            Instruction::LoadStream { tile: 4, address: 0x8000, stride: 0x9000 },
        ),
        // tilestored [rdi + r8 + 0x100], tmm2
        (&[0xC4, 0xA2, 0x7A, 0x4B, 0x94, 0x07, 0x00, 0x01, 0x00, 0x00], store(2, 0x8100, 0x9000)),
        // tdpbf16ps tmm0, tmm4, tmm6
        (&[0xC4, 0xE2, 0x4A, 0x5C, 0xC4], Instruction::Dot { sum: 0, a: 4, b: 6 }),
        // tdpbf16ps tmm3, tmm5, tmm7
        (&[0xC4, 0xE2, 0x42, 0x5C, 0xDD], Instruction::Dot { sum: 3, a: 5, b: 7 }),
        // tilestored [rbx + rcx], tmm1
        (&[0xC4, 0xE2, 0x7A, 0x4B, 0x0C, 0x0B], store(1, 0x4000, 0x2000)),
    ];
    for (bytes, instruction) in cases {
        let mut code = [0xCC; 16];
        code[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(decode(&code, &registers), Some((instruction, bytes.len())), "{bytes:02X?}");
    }
    // ud2; tdpbssd; tileloadd without a SIB byte; VEX.256.
    let others: [&[u8]; 4] = [
        &[0x0F, 0x0B],
        &[0xC4, 0xE2, 0x4B, 0x5E, 0xC4],
        &[0xC4, 0xE2, 0x7B, 0x4B, 0x2E],
        &[0xC4, 0xE2, 0x4E, 0x5C, 0xC4],
    ];
    for bytes in others {
        let mut code = [0xCC; 16];
        code[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(decode(&code, &registers), None, "{bytes:02X?}");
    }
}
