//! `triarch replica remove`.

use clap::Subcommand;
use triarch_env::ExitCode;
use triarch_rpc::admin::RemoveReplicaRequest;

use super::connect::{self, Target};
use super::{Failure, Outcome, block_on};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take a replica out of the cluster for good; its data directory is never accepted again
    #[command(after_help = "Example:\n  triarch replica remove c")]
    Remove {
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

pub fn run(args: Args) -> Outcome {
    let Verb::Remove { name, target } = args.verb;
    let r = block_on(async {
        let mut client = connect::admin(&target).await?;
        let answer = client.remove_replica(RemoveReplicaRequest { name }).await.map_err(connect::failure)?;
        Ok::<_, Failure>(answer.into_inner())
    })??;
    let names: Vec<_> = r.members.iter().filter(|m| m.role == "voter").map(|m| m.name.as_str()).collect();
    println!("replicas={}", names.join(","));
    Ok(ExitCode::Ok)
}
