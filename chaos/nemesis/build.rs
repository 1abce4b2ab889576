//! Compiles `shim/clock.rs` into a shared object that the program carries: it
//! is loaded into replicas, never into this crate.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=shim/clock.rs");
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let target = std::env::var("TARGET").expect("cargo names the target");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names the folder")).join("clock.so");
    let status = Command::new(rustc)
        .args(["--edition=2024", "--crate-name=clock", "--crate-type=cdylib", "--target", &target])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "strip=symbols", "shim/clock.rs", "-o"])
        .arg(&out)
        .status()
        .expect("the compiler runs");
    assert!(status.success(), "shim/clock.rs does not compile: {status}");
}
