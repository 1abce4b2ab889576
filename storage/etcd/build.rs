//! Compiles the protocol definitions in Rust alone (no `protoc`).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<_> = std::fs::read_dir("proto")?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "proto"));
    files.sort();
    let set = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallMessages").compile_fds(set)?;
    Ok(())
}
