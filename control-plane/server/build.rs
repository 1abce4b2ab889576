//! Puts the commit that is built into the binary; `unknown` outside a checkout.

use std::process::Command;

fn main() {
    // HEAD names a branch; its log moves with every commit.
    println!("cargo:rerun-if-changed=../../.git/HEAD");
    println!("cargo:rerun-if-changed=../../.git/logs/HEAD");
    let out = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = out.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    println!("cargo:rustc-env=TRIARCH_COMMIT={}", commit.as_deref().map_or("unknown", str::trim));
}
