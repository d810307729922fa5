//! Compiles the emulator and, with it, every op's `cuda.cu` by the C++ compiler. Where there is none (or the system is
//! not Linux), the crate is built without and its tests count as ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

const OPS: &str = "../kindling-core/src/ops";

fn main() {
    println!("cargo:rustc-check-cfg=cfg(no_cpp_compiler)");
    println!("cargo:rerun-if-env-changed=CXX");
    println!("cargo:rerun-if-changed=cpp");
    for file in files(Path::new(OPS), &["cu", "cuh"]) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").include("cpp").include(OPS).opt_level(1).debug(false);
    // An index outside an array, or a misaligned access, stops the kernel where it happens.
    build.flag("-fsanitize=alignment,bounds").flag("-fsanitize-undefined-trap-on-error");
    // The emulator leaves a failed kernel by a jump from one stack to another.
    build.flag("-U_FORTIFY_SOURCE").flag_if_supported("-Wno-unknown-pragmas");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    let works =
        || build.try_get_compiler().is_ok_and(|c| Command::new(c.path()).arg("--version").output().is_ok());
    if linux && works() {
        build.files(files(Path::new("cpp"), &["cpp"])).compile("kindling_emulator_kernels");
    } else {
        println!("cargo:warning=no C++ compiler: the tests of the CUDA kernels will be ignored");
        println!("cargo:rustc-cfg=no_cpp_compiler");
    }
}

/// The files of a folder and its folders that have one of the extensions, sorted.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
            found.push(path);
        }
    }
    found.sort();
    found
}
