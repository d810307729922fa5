//! Products with the tiles of AMX-BF16: the instructions, the loop over them, and the check at
//! start-up that they compute what their specification says.

mod block_product;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod self_test;
mod tiles;

pub(crate) use block_product::{BLOCK_SIDE, PanelRun, multiply_run};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use self_test::matches_emulation;
pub(crate) use tiles::{Amx, EmulatedAmx, TILE_SIDE, Tiles, release};

/// Returns whether the processor has AMX-BF16, the system lets this process use it, and it computes
/// what `EmulatedAmx` does. Checks once per process.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn is_available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AVAILABLE.get_or_init(|| tiles::can_use() && matches_emulation())
}

/// Returns false: tiles are used on x86-64 Linux only.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) fn is_available() -> bool {
    false
}
