//! Sets `cfg(loom)` for this crate alone, with which the engine's files take their atomics from
//! loom.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
}
