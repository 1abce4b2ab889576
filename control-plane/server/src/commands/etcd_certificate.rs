//! `triarch etcd-certificate`.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use triarch_env::ExitCode;
use triarch_rpc::admin::EtcdCertificateRequest;

use super::connect::{self, Target};
use super::token::parse_ttl;
use super::{Failure, Outcome, block_on};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes ca.crt, client.crt and client.key. The certificate opens the etcd facade and nothing else.

Example:
  triarch etcd-certificate --user app --out /etc/app/etcd
  etcdctl --endpoints https://10.0.0.1:2379 --cacert /etc/app/etcd/ca.crt \\
    --cert /etc/app/etcd/client.crt --key /etc/app/etcd/client.key get --prefix ''")]
pub struct Args {
    /// User name in the certificate
    #[arg(long)]
    user: String,
    /// Directory to write to; made when it is missing
    #[arg(long)]
    out: PathBuf,
    /// How long the certificate is good for
    #[arg(long, default_value = "365d", value_parser = parse_ttl)]
    ttl: u64,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Outcome {
    let request = EtcdCertificateRequest { user: args.user, ttl_seconds: args.ttl as i64 };
    let made = block_on(async {
        let mut client = connect::admin(&args.target).await?;
        Ok::<_, Failure>(client.etcd_certificate(request).await.map_err(connect::failure)?.into_inner())
    })??;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    for (name, text, mode) in [
        ("ca.crt", &made.ca_pem, 0o644),
        ("client.crt", &made.certificate_pem, 0o644),
        ("client.key", &made.key_pem, 0o600),
    ] {
        let path = args.out.join(name);
        write(&path, text, mode).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(ExitCode::Ok)
}

/// A new file under this name, whatever rights an old one had.
fn write(path: &Path, text: &[u8], mode: u32) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    std::io::Write::write_all(&mut file, text)
}
