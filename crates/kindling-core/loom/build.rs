//! Sets `cfg(loom)` for this crate alone: the engine's files take their atomics from loom then.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
}
