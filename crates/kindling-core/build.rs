//! With the feature `cuda`, compiles every op's `cuda.cu` with nvcc for `sm_80` and `sm_90a`, and to
//! PTX of `compute_80` that drivers compile for newer GPUs, and writes a table of the results.
//! Without nvcc the table is empty: the build links, and reports at run time that it has no
//! kernels.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const OPS: &str = "src/ops";
/// Required nvcc release: drivers of CUDA 13.0 reject PTX from a newer one.
const RELEASE: &str = "release 13.0";
const TARGETS: [&str; 3] = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90a,code=sm_90a",
    "-gencode=arch=compute_80,code=compute_80",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    // Declares the folders of ops: a new one may bring new kernels.
    println!("cargo:rerun-if-changed={OPS}/mod.rs");
    for file in files(Path::new(OPS), &["cu", "cuh"]) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let sources = if has_compiler() { files(Path::new(OPS), &["cu"]) } else { Vec::new() };
    compile_all(&sources, &out);
    let mut table = String::from("const MODULES: &[(&str, &[u8])] = &[\n");
    for source in &sources {
        let image = image_of(source, &out);
        _ = writeln!(
            table,
            "    ({:?}, include_bytes!({:?})),",
            op_of(source),
            image.display().to_string()
        );
    }
    table += "];\n";
    std::fs::write(out.join("cuda_modules.rs"), table).expect("a writable OUT_DIR");
}

fn nvcc() -> Command {
    let home = std::env::var_os("CUDA_HOME");
    Command::new(
        home.map_or_else(|| PathBuf::from("nvcc"), |home| Path::new(&home).join("bin/nvcc")),
    )
}

/// Returns whether nvcc is installed. Panics if it has the wrong release.
fn has_compiler() -> bool {
    let Ok(version) = nvcc().arg("--version").output() else {
        println!("cargo:warning=no nvcc (CUDA_HOME): this build has no CUDA kernels");
        return false;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(
        version.contains(RELEASE),
        "nvcc has to be of CUDA 13.0, as npm run build:cuda fetches it: {version}"
    );
    true
}

/// Compiles the sources in parallel, up to the number of jobs cargo allows.
fn compile_all(sources: &[PathBuf], out: &Path) {
    let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..sources.len().min(jobs) {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = compile(source, &image_of(source, out)) {
                        failed.lock().expect("no thread panicked").push(message);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panicked");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn compile(source: &Path, image: &Path) -> Result<(), String> {
    let done = nvcc()
        .args(["-std=c++17", "-O3", "-fatbin", "--compress-mode=size", "-I", OPS])
        .args(TARGETS)
        .arg("-o")
        .arg(image)
        .arg(source)
        .output()
        .map_err(|error| format!("nvcc: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("{}: {said}", source.display())) }
}

fn image_of(source: &Path, out: &Path) -> PathBuf {
    out.join(format!("{}.fatbin", op_of(source)))
}

/// The folder's name; `cuda` for the kernels that belong to no op.
fn op_of(source: &Path) -> String {
    source
        .parent()
        .and_then(Path::file_name)
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
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
