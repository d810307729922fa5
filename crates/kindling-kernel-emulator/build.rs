//! Compiles the emulator and every op's `cuda.cu` with the C++ compiler. Without one, or outside
//! Linux, the crate builds empty and its tests are ignored.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const OPS: &str = "../kindling-core/src/ops";

fn main() {
    println!("cargo:rustc-check-cfg=cfg(no_cpp_compiler)");
    println!("cargo:rerun-if-env-changed=CXX");
    println!("cargo:rerun-if-changed=cpp");
    // This file declares the folders of ops; a new one may bring new kernels.
    println!("cargo:rerun-if-changed={OPS}/mod.rs");
    for file in files(Path::new(OPS), &["cu", "cuh"]) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").include("cpp").include(OPS).opt_level(1).debug(false);
    // An out-of-bounds index or a misaligned access stops the kernel on the spot.
    build.flag("-fsanitize=alignment,bounds").flag("-fsanitize-undefined-trap-on-error");
    // The emulator leaves a failed kernel by jumping to another stack.
    build.flag("-U_FORTIFY_SOURCE").flag_if_supported("-Wno-unknown-pragmas");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    let works = || {
        build
            .try_get_compiler()
            .is_ok_and(|c| Command::new(c.path()).arg("--version").output().is_ok())
    };
    if linux && works() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
        let tables = write_tables(&build, &out);
        build.files(files(Path::new("cpp"), &["cpp"])).files(tables);
        build.compile("kindling_kernel_emulator_kernels");
    } else {
        println!("cargo:warning=no C++ compiler: the tests of the CUDA kernels will be ignored");
        println!("cargo:rustc-cfg=no_cpp_compiler");
    }
}

/// Writes a .cpp for each .cu that includes it and registers its kernels, and one that calls all of
/// them.
fn write_tables(build: &cc::Build, out: &Path) -> Vec<PathBuf> {
    let mut sources = files(Path::new(OPS), &["cu"]);
    sources.extend(files(Path::new("cpp"), &["cu"]));
    let (mut written, mut declared, mut called) = (Vec::new(), String::new(), String::new());
    for (index, source) in sources.iter().enumerate() {
        let path = source.canonicalize().expect("a path");
        let include = format!("#include \"{}\"\n", path.display());
        let plain = out.join(format!("expand_{index}.cpp"));
        std::fs::write(&plain, &include).expect("a writable OUT_DIR");
        let text = String::from_utf8_lossy(&build.clone().file(plain).expand()).into_owned();
        let mut table = include + "#include \"kernels.h\"\n";
        _ = writeln!(table, "void add_kernels_{index}() {{");
        for kernel in kernel_names(&text) {
            _ = writeln!(table, "    ADD_KERNEL({kernel});");
        }
        table += "}\n";
        _ = writeln!(declared, "void add_kernels_{index}();");
        _ = writeln!(called, "    add_kernels_{index}();");
        written.push((out.join(format!("kernels_{index}.cpp")), table));
    }
    let all = format!("{declared}namespace emulator {{\nvoid add_kernels() {{\n{called}}}\n}}\n");
    written.push((out.join("kernels.cpp"), all));
    for (path, text) in &written {
        std::fs::write(path, text).expect("a writable OUT_DIR");
    }
    written.into_iter().map(|(path, _)| path).collect()
}

/// Returns the names of the kernels in a source after macro expansion, where `__global__` has left
/// its mark (emulator.h).
fn kernel_names(expanded: &str) -> Vec<String> {
    let declarations = expanded.split("extern \"C\" __attribute__((used)) void").skip(1);
    declarations.map(|text| text.split('(').next().unwrap_or_default().trim().to_owned()).collect()
}

/// Lists files below `folder` with one of the extensions, sorted.
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
