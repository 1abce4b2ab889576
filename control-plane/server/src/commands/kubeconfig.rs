//! `triarch kubeconfig`.

use triarch_env::ExitCode;
use triarch_rpc::admin::KubeconfigRequest;

use super::connect::{self, Target};
use super::token::parse_ttl;
use super::{Failure, Outcome, block_on};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  triarch kubeconfig --user jane --group system:masters > jane.kubeconfig")]
pub struct Args {
    /// User name in the certificate
    #[arg(long)]
    user: String,
    /// Group in the certificate (at most two)
    #[arg(long = "group", num_args = 1)]
    groups: Vec<String>,
    /// Address that the kubeconfig names; default: the replica's own
    #[arg(long, default_value = "")]
    server: String,
    /// How long the certificate is good for
    #[arg(long, default_value = "365d", value_parser = parse_ttl)]
    ttl: u64,
    /// Name of the cluster in the file
    #[arg(long, default_value = "triarch")]
    cluster: String,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Outcome {
    if args.groups.len() > 2 {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("--group: got {} groups, takes at most two", args.groups.len()),
        ));
    }
    let request = KubeconfigRequest {
        user: args.user,
        groups: args.groups,
        server: args.server,
        ttl_seconds: args.ttl as i64,
        cluster_name: args.cluster,
    };
    let text = block_on(async {
        let mut client = connect::admin(&args.target).await?;
        Ok::<_, Failure>(client.kubeconfig(request).await.map_err(connect::failure)?.into_inner().kubeconfig)
    })??;
    print!("{text}");
    Ok(ExitCode::Ok)
}
