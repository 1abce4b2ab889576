//! `triarch token create`.

use clap::{Subcommand, ValueEnum};
use triarch_env::ExitCode;
use triarch_rpc::admin::CreateTokenRequest;

use super::connect::{self, Target};
use super::{Failure, Outcome, block_on};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token that lets a node or a replica join
    #[command(after_help = "\
Examples:
  triarch token create --class node
  triarch token create --class server --ttl 1h --print-join")]
    Create {
        /// Who may join with it
        #[arg(long, value_enum)]
        class: Class,
        /// How long it is good for: a number and s, m, h or d (at most 365d)
        #[arg(long, default_value = "24h", value_parser = parse_ttl)]
        ttl: u64,
        /// Print the whole command line to run on the joining machine
        #[arg(long)]
        print_join: bool,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Class {
    Node,
    Server,
}

pub fn run(args: Args) -> Outcome {
    let Verb::Create { class, ttl, print_join, target } = args.verb;
    let name = match class {
        Class::Node => "node",
        Class::Server => "server",
    };
    let answer = block_on(async {
        let mut client = connect::admin(&target).await?;
        let request = CreateTokenRequest { class: name.into(), ttl_seconds: ttl as i64 };
        Ok::<_, Failure>(client.create_token(request).await.map_err(connect::failure)?.into_inner())
    })??;
    match (print_join, class) {
        (false, _) => println!("{}", answer.token),
        (true, Class::Node) => println!(
            "triarch-node --server {} --token {} --data-dir /var/lib/triarch-node --cri /run/containerd/containerd.sock",
            answer.join_url, answer.token
        ),
        (true, Class::Server) => println!(
            "triarch server --data-dir /var/lib/triarch --name NAME --join {} --token {}",
            answer.join_url, answer.token
        ),
    }
    Ok(ExitCode::Ok)
}

/// `90s`, `15m`, `24h`, `7d` to seconds.
pub fn parse_ttl(text: &str) -> Result<u64, String> {
    let wrong = || format!("got {text:?}, takes a number and s, m, h or d, for example 24h (at most 365d)");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(wrong)?;
    if (1..=365 * 86_400).contains(&seconds) { Ok(seconds) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::parse_ttl;

    #[test]
    fn a_lifetime_is_a_number_with_a_unit_and_has_an_upper_bound() {
        assert_eq!(parse_ttl("24h"), Ok(86_400));
        assert_eq!(parse_ttl("90s"), Ok(90));
        for bad in ["", "h", "24", "1y", "0s", "366d", "-1h", "é"] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }
}
