//! `triarch leader transfer`.

use clap::Subcommand;
use triarch_env::ExitCode;
use triarch_rpc::admin::TransferLeaderRequest;

use super::connect::{self, Target};
use super::{Failure, Outcome, block_on};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Hand leadership to another replica without a gap in service
    #[command(after_help = "Example:\n  triarch leader transfer --to b")]
    Transfer {
        /// Name of the replica; default: the one that is most caught up
        #[arg(long, default_value = "")]
        to: String,
        #[command(flatten)]
        target: Target,
    },
}

pub fn run(args: Args) -> Outcome {
    let Verb::Transfer { to, target } = args.verb;
    let r = block_on(async {
        let mut client = connect::admin(&target).await?;
        let answer = client.transfer_leader(TransferLeaderRequest { to }).await.map_err(connect::failure)?;
        Ok::<_, Failure>(answer.into_inner())
    })??;
    println!("leader={} term={} took_ms={}", r.leader, r.term, r.took_ms);
    Ok(ExitCode::Ok)
}
