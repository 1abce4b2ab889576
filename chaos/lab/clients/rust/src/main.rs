//! Uses of an etcd cluster by the Rust crate `etcd-client`. Each case is a line:
//! `case NAME ok`, or `case NAME FAILED: WHY`, and then the exit code is 1.
//!
//! `etcd-clients-rust ENDPOINTS CA CERT KEY`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType, GetOptions, Identity,
    LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A case that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => { if !$holds { return Err(format!($($why)*).into()); } };
}

macro_rules! cases {
    ($client:expr; $($name:ident)*) => {{
        let mut failed = false;
        $(
            let (mut client, prefix) = ($client.clone(), concat!("rust/", stringify!($name), "/"));
            let outcome = async {
                client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
                $name(client, prefix).await
            };
            match tokio::time::timeout(PATIENCE, outcome).await {
                Ok(Ok(())) => println!("case {} ok", stringify!($name)),
                Ok(Err(why)) => {
                    failed = true;
                    println!("case {} FAILED: {why}", stringify!($name));
                }
                Err(_) => {
                    failed = true;
                    println!("case {} FAILED: not done after {PATIENCE:?}", stringify!($name));
                }
            }
        )*
        failed
    }};
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, ca, cert, key] = &arguments[..] else {
        eprintln!("usage: etcd-clients-rust ENDPOINTS CA CERT KEY");
        return ExitCode::from(2);
    };
    let client = match connect(endpoints, ca, cert, key).await {
        Ok(client) => client,
        Err(why) => {
            println!("case connect FAILED: {why}");
            return ExitCode::FAILURE;
        }
    };
    let failed = cases! { client;
        put_get_and_delete ranges_by_prefix_limit_order_and_count nested_transactions
        watch_from_a_revision_with_previous_values compaction_is_told lease_is_granted_kept_and_revoked lease_expires
        status_members_and_hashes what_is_not_supported_is_refused
    };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn connect(endpoints: &str, ca: &str, cert: &str, key: &str) -> Result<Client, Box<dyn std::error::Error>> {
    let read = |path: &str| std::fs::read(path);
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(ca)?))
        .identity(Identity::from_pem(read(cert)?, read(key)?));
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    Ok(Client::connect(endpoints, Some(ConnectOptions::new().with_tls(tls))).await?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn put_get_and_delete(mut c: Client, p: &str) -> Outcome {
    let key = format!("{p}a");
    c.put(key.as_str(), "1", None).await?;
    let put = c.put(key.as_str(), "2", Some(PutOptions::new().with_prev_key())).await?;
    ensure!(put.prev_key().is_some_and(|kv| kv.value() == b"1"), "the put answered {put:?}");
    let got = c.get(key.as_str(), None).await?;
    let kv = &got.kvs()[0];
    ensure!(kv.version() == 2 && kv.mod_revision() == kv.create_revision() + 1, "{kv:?}");
    let past = c.get(key.as_str(), Some(GetOptions::new().with_revision(kv.create_revision()))).await?;
    ensure!(past.kvs()[0].value() == b"1", "the past is {past:?}");
    let gone = c.delete(key.as_str(), Some(DeleteOptions::new().with_prev_key())).await?;
    ensure!(gone.deleted() == 1 && gone.prev_kvs()[0].value() == b"2", "{gone:?}");
    ensure!(c.get(key.as_str(), None).await?.kvs().is_empty(), "it is still there");
    Ok(())
}

async fn ranges_by_prefix_limit_order_and_count(mut c: Client, p: &str) -> Outcome {
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2")] {
        c.put(format!("{p}{key}"), value, None).await?;
    }
    let all = || GetOptions::new().with_prefix();
    for (options, values, more) in [
        (all(), "312", false),
        (all().with_limit(2), "31", true),
        (all().with_sort(SortTarget::Value, SortOrder::Descend), "321", false),
        (all().with_count_only(), "", false),
    ] {
        let got = c.get(p, Some(options)).await?;
        let found: String = got.kvs().iter().map(|kv| text(kv.value())).collect();
        ensure!((found.as_str(), got.more(), got.count()) == (values, more, 3), "{found}, {got:?}");
    }
    let keys = c.get(p, Some(all().with_keys_only())).await?;
    ensure!(keys.kvs().iter().all(|kv| kv.value().is_empty()), "{keys:?}");
    Ok(())
}

async fn nested_transactions(mut c: Client, p: &str) -> Outcome {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    c.put(a.as_str(), "1", None).await?;
    let inner = Txn::new().when([Compare::version(b.as_str(), CompareOp::Equal, 0)]).and_then([TxnOp::put(
        b.as_str(),
        "inner",
        None,
    )]);
    let outer = Txn::new()
        .when([Compare::value(a.as_str(), CompareOp::Equal, "1")])
        .and_then([TxnOp::txn(inner), TxnOp::get(b.as_str(), None)])
        .or_else([TxnOp::get(a.as_str(), None)]);
    let done = c.txn(outer.clone()).await?;
    let responses = done.op_responses();
    ensure!(done.succeeded(), "{done:?}");
    ensure!(matches!(&responses[1], TxnOpResponse::Get(r) if r.kvs()[0].value() == b"inner"), "{responses:?}");
    c.put(a.as_str(), "2", None).await?;
    ensure!(!c.txn(outer).await?.succeeded(), "its condition does not hold any more");
    Ok(())
}

async fn watch_from_a_revision_with_previous_values(mut c: Client, p: &str) -> Outcome {
    let key = format!("{p}a");
    let first = c.put(key.as_str(), "1", None).await?.header().map_or(0, |h| h.revision());
    c.put(key.as_str(), "2", None).await?;
    let options = WatchOptions::new().with_prefix().with_prev_key().with_start_revision(first + 1);
    let mut stream = c.watch(p, Some(options)).await?;
    c.delete(key.as_str(), None).await?;
    let (mut told, mut id) = (Vec::new(), 0);
    while told.len() < 2 {
        let Some(r) = stream.message().await? else { return Err("the watch ended".into()) };
        id = r.watch_id();
        for e in r.events() {
            let prev = e.prev_kv().map_or(String::new(), |kv| text(kv.value()));
            told.push((e.event_type() == EventType::Put, prev));
        }
    }
    ensure!(told == [(true, "1".into()), (false, "2".into())], "{told:?}");
    stream.request_progress().await?;
    let progress = stream.message().await?;
    ensure!(progress.as_ref().is_some_and(|r| r.events().is_empty()), "{progress:?}");
    stream.cancel(id).await?;
    let cancelled = stream.message().await?;
    ensure!(cancelled.as_ref().is_some_and(|r| r.canceled()), "{cancelled:?}");
    Ok(())
}

async fn compaction_is_told(mut c: Client, p: &str) -> Outcome {
    let key = format!("{p}a");
    let first = c.put(key.as_str(), "1", None).await?.header().map_or(0, |h| h.revision());
    let last = c.put(key.as_str(), "2", None).await?.header().map_or(0, |h| h.revision());
    c.compact(last, None).await?;
    let past = c.get(key.as_str(), Some(GetOptions::new().with_revision(first))).await;
    said(past, "etcdserver: mvcc: required revision has been compacted")?;
    // A member that has not applied the compaction yet still shows the past.
    loop {
        let mut stream = c.watch(key.as_str(), Some(WatchOptions::new().with_start_revision(first))).await?;
        let mut told = stream.message().await?;
        if told.as_ref().is_some_and(|r| r.created()) {
            told = stream.message().await?;
        }
        if told.as_ref().is_none_or(|r| r.events().is_empty()) {
            ensure!(told.as_ref().is_some_and(|r| r.canceled() && r.compact_revision() == last), "{told:?}");
            return Ok(());
        }
    }
}

fn said<T: std::fmt::Debug>(result: Result<T, Error>, message: &str) -> Outcome {
    match result {
        Err(Error::GRpcStatus(status)) if status.message() == message => Ok(()),
        other => Err(format!("got {other:?}, want {message:?}").into()),
    }
}

async fn lease_is_granted_kept_and_revoked(mut c: Client, p: &str) -> Outcome {
    let key = format!("{p}a");
    let lease = c.lease_grant(60, None).await?;
    c.put(key.as_str(), "1", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let (mut keeper, mut answers) = c.lease_keep_alive(lease.id()).await?;
    keeper.keep_alive().await?;
    let kept = answers.message().await?;
    ensure!(kept.as_ref().is_some_and(|r| r.ttl() == 60), "{kept:?}");
    let left = c.lease_time_to_live(lease.id(), Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    ensure!(left.granted_ttl() == 60 && left.keys() == [key.as_bytes()], "{left:?}");
    ensure!(c.leases().await?.leases().iter().any(|l| l.id() == lease.id()), "it is not listed");
    c.lease_revoke(lease.id()).await?;
    ensure!(c.get(key.as_str(), None).await?.kvs().is_empty(), "its key is still there");
    said(c.lease_revoke(lease.id()).await, "etcdserver: requested lease not found")?;
    keeper.keep_alive().await?;
    let gone = answers.message().await?;
    ensure!(gone.as_ref().is_some_and(|r| r.ttl() == 0), "{gone:?}");
    Ok(())
}

async fn lease_expires(mut c: Client, p: &str) -> Outcome {
    let key = format!("{p}a");
    let lease = c.lease_grant(2, None).await?;
    let put = c.put(key.as_str(), "1", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let began = Instant::now();
    let from = put.header().map_or(0, |h| h.revision()) + 1;
    let mut stream = c.watch(key.as_str(), Some(WatchOptions::new().with_start_revision(from))).await?;
    let r = loop {
        match stream.message().await? {
            Some(r) if r.events().is_empty() => {}
            Some(r) => break r,
            None => return Err("the watch ended".into()),
        }
    };
    ensure!(r.events()[0].event_type() == EventType::Delete, "{r:?}");
    ensure!(began.elapsed() > Duration::from_millis(1900), "after {:?}", began.elapsed());
    Ok(())
}

async fn status_members_and_hashes(mut c: Client, p: &str) -> Outcome {
    c.put(format!("{p}a"), "1", None).await?;
    let status = c.status().await?;
    ensure!(status.version().starts_with("3.") && status.leader() != 0 && status.raft_term() > 0, "{status:?}");
    let members = c.member_list().await?;
    ensure!(members.members().iter().any(|m| m.id() == status.leader()), "{members:?}");
    ensure!(c.hash_kv(0).await?.hash() != 0, "no hash");
    c.hash().await?;
    Ok(())
}

async fn what_is_not_supported_is_refused(mut c: Client, _: &str) -> Outcome {
    said(c.member_add(["https://127.0.0.1:1"], None).await, "etcdserver: not capable")?;
    said(c.auth_enable().await, "etcdserver: root user does not exist")?;
    said(c.user_get("nobody").await, "etcdserver: user name not found")?;
    ensure!(c.user_list().await?.users().is_empty(), "there are users");
    // The crate's locks are a service beside etcd's own.
    match c.lock("x", None).await {
        Err(Error::GRpcStatus(status)) if format!("{:?}", status.code()) == "Unimplemented" => Ok(()),
        other => Err(format!("a lock: {other:?}").into()),
    }
}
