//! `triarch version`.

use clap::ValueEnum;
use triarch_env::ExitCode;

use super::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(args: Args) -> Outcome {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("TRIARCH_COMMIT"));
    let (kubernetes, level) = (crate::KUBERNETES_VERSION, triarch_mvcc::levels::LATEST);
    match args.output {
        Format::Text => println!("triarch {version} commit={commit} kubernetes={kubernetes} feature-level={level}"),
        Format::Json => println!(
            "{}",
            serde_json::json!({"version": version, "commit": commit, "kubernetesVersion": kubernetes, "featureLevel": level})
        ),
    }
    Ok(ExitCode::Ok)
}
