//! Builds the library that is preloaded into warm compilers, for `include_bytes!`: an installed
//! thinshim is one file.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCES: [&str; 3] = ["src/warm/preload.rs", "src/warm/text.rs", "src/warm/wire.rs"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let library = PathBuf::from(variable("OUT_DIR")).join("preload.so");
    let architecture = variable("CARGO_CFG_TARGET_ARCH");
    let fits = variable("CARGO_CFG_TARGET_OS") == "linux"
        && variable("CARGO_CFG_TARGET_ENV") == "gnu"
        && ["x86_64", "aarch64"].contains(&architecture.as_str());
    if !fits {
        // Without it every compiler is started as usual.
        std::fs::write(&library, []).expect("OUT_DIR can be written to");
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition=2024", "--crate-type=cdylib", "--crate-name=thinshim_preload"])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Clto", "-Cstrip=symbols", "-lc", "-o"])
        .arg(&library)
        .arg(format!("--target={}", variable("TARGET")));
    // A cross build's linker is cargo's to know.
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let status = rustc.arg(SOURCES[0]).status().expect("rustc runs");
    assert!(status.success(), "rustc could not build {}", SOURCES[0]);
}
