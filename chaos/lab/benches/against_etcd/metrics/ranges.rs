//! Concurrent reads a second, of one key and of a hundred, serializable (what a
//! member has) and linearizable.

use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::{PutRequest, RangeRequest};

use crate::client::{connections, load, value};
use crate::round::Round;

const CLIENTS: usize = 64;
/// Keys that are there, under the prefix that is read.
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 256;
/// Of the longer reads.
const LONG: u64 = 100;

fn key(n: u64) -> String {
    format!("range/{:06}", n % KEYS)
}

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let mut kv = KvClient::new(connections(round.endpoints(), 1).await?.remove(0));
    for n in 0..KEYS {
        let put = PutRequest { key: key(n).into(), value: value(n, VALUE_BYTES).into(), ..PutRequest::default() };
        kv.put(put).await?;
    }
    let (before, mut made) = (round.cpu()?, 0);
    for (name, serializable) in [("range", true), ("lin_range", false)] {
        for long in [1, LONG] {
            let load = load(round.endpoints(), CLIENTS, round.part, move |mut kv, client, n| async move {
                // Each begins elsewhere, and a long one never at the end of what is there.
                let from = (client as u64 * 31 + n * 7) % (KEYS - LONG);
                let range_end = if long == 1 { Vec::new() } else { key(from + long).into_bytes() };
                let range = RangeRequest {
                    key: key(from).into(),
                    range_end: range_end.into(),
                    serializable,
                    ..RangeRequest::default()
                };
                let got = kv.range(range).await?.into_inner().kvs.len() as u64;
                if got == long { Ok(()) } else { Err(tonic::Status::data_loss(format!("{got} of {long} keys"))) }
            });
            let load = load.await?;
            made += load.done();
            round.add(format!("{name}_{long}"), load.per_second);
        }
    }
    round.add_cpu("range", before, made)
}
