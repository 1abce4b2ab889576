//! Where processes spend the CPU's time, by layer: samples of perf, told apart
//! by the functions in them.
//!
//! A sample in the kernel belongs to what was asked of it (its stack says so), one
//! in a program to the package of the function that ran. Rust's stacks are cut
//! short (no frame pointers), so allocation and copying are layers of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::process::{self, ProcessId};

/// Samples a second of each CPU: no divisor of anything periodic.
const FREQUENCY: &str = "499";
/// Longest profile.
const LONGEST: Duration = Duration::from_secs(120);
/// A kernel's addresses are above this.
const KERNEL: u64 = 1 << 63;

/// Kernel functions by layer; the first layer that has one in the stack counts.
const IN_KERNEL: &[(&str, &[&str])] = &[
    (
        "kernel: disk",
        &["ext4_", "jbd2_", "blk_", "vfs_fsync", "fdatasync", "fsync", "bio_", "folio_wait", "xfs_", "iomap_"],
    ),
    ("kernel: network", &["tcp_", "inet_", "sock_", "sk_", "skb_", "ip_", "__netif", "net_rx", "unix_stream"]),
    ("kernel: waiting and waking", &["epoll", "ep_", "futex", "eventfd", "schedule", "nanosleep", "try_to_wake_up"]),
];
/// Beginnings of functions' names by layer, in Rust's and Go's packages.
const IN_PROGRAM: &[(&str, &[&str])] = &[
    (
        "allocation",
        &[
            "mi_",
            "_mi_",
            "malloc",
            "free",
            "realloc",
            "runtime.malloc",
            "runtime.gc",
            "runtime.scan",
            "runtime.(*m",
            "runtime.(*gc",
            "runtime.greyobject",
            "runtime.findObject",
            "runtime.sweep",
            "runtime.newobject",
            "runtime.(*sweep",
            "runtime.typePointers",
            "runtime.wbBuf",
            "runtime.bulkBarrier",
            "runtime.growslice",
            "runtime.makeslice",
        ],
    ),
    ("comparing", &["__memcmp", "memcmp", "bcmp", "cmpbody", "memeqbody", "runtime.memequal", "runtime.cmpstring"]),
    ("copying", &["__mem", "memcpy", "memmove", "runtime.memmove", "runtime.memclr"]),
    (
        "HTTP/2",
        &[
            "h2::",
            "hyper",
            "http::",
            "http_body",
            "golang.org/x/net/http2",
            "google.golang.org/grpc/internal/transport",
            "net/http",
        ],
    ),
    (
        "gRPC and protobuf",
        &[
            "tonic",
            "prost",
            "tower",
            "axum",
            "google.golang.org/grpc",
            "google.golang.org/protobuf",
            "github.com/gogo",
            "github.com/golang/protobuf",
            "github.com/grpc-ecosystem",
            "go.etcd.io/etcd/api",
        ],
    ),
    ("facade", &["triarch_etcd", "go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"]),
    ("TLS between members", &["rustls", "ring", "tokio_rustls", "crypto/", "aes_", "gcm_", "GFp_", "_aesni"]),
    (
        "raft",
        &[
            "openraft",
            "triarch_raft",
            "base2histogram",
            "go.etcd.io/raft",
            "go.etcd.io/etcd/raft",
            "go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp",
        ],
    ),
    (
        "log",
        &[
            "triarch_wal",
            "crc32",
            "go.etcd.io/etcd/server/v3/storage/wal",
            "go.etcd.io/etcd/server/v3/wal",
            "hash/crc32",
        ],
    ),
    (
        "checkpoint or backend",
        &[
            "triarch_checkpoint",
            "go.etcd.io/bbolt",
            "go.etcd.io/etcd/server/v3/storage/backend",
            "go.etcd.io/etcd/server/v3/mvcc/backend",
        ],
    ),
    (
        "store",
        &[
            "triarch_mvcc",
            "imbl",
            "go.etcd.io/etcd/server/v3/storage",
            "go.etcd.io/etcd/server/v3/mvcc",
            "github.com/google/btree",
            "k8s.io/utils/third_party/forked/golang/btree",
        ],
    ),
    (
        "other server",
        &["triarch", "go.etcd.io/etcd", "go.uber.org/zap", "github.com/prometheus", "prometheus_client", "tracing"],
    ),
    ("encoding", &["bincode", "serde", "encoding/"]),
    // What the compiler did not put into its callers, maps and sets among it.
    (
        "standard library",
        &["std::", "core::", "alloc::", "hashbrown", "slices.", "sort.", "strings.", "bytes.", "fmt."],
    ),
    (
        "runtime",
        &[
            "tokio",
            "futures",
            "parking_lot",
            "mio",
            "runtime.",
            "sync",
            "time.",
            "context",
            "internal/",
            "syscall",
            "net.",
            "clock_gettime",
            "__vdso",
            "pthread",
            "__GI_",
        ],
    ),
];
/// Everything else.
const REST: &str = "rest";

/// Samples by layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    pub samples: BTreeMap<&'static str, u64>,
}

impl Layers {
    pub fn total(&self) -> u64 {
        self.samples.values().sum()
    }

    /// Reads what `perf script -F ip,sym` says: a stack a sample, innermost
    /// function first, an empty line between two.
    pub fn parse(text: &str) -> Layers {
        let mut layers = Layers::default();
        let mut stack: Vec<(u64, &str)> = Vec::new();
        for line in text.lines().chain([""]) {
            let mut words = line.split_whitespace();
            match words.next().map(|w| u64::from_str_radix(w, 16)) {
                Some(Ok(address)) => {
                    let rest = line.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
                    stack.push((address, rest));
                }
                _ if !stack.is_empty() => {
                    *layers.samples.entry(layer(&stack)).or_default() += 1;
                    stack.clear();
                }
                _ => {}
            }
        }
        layers
    }

    /// Samples `processes` for `time`, keeping what perf writes in `dir`.
    ///
    /// # Errors
    /// There is no perf, or the kernel does not let it.
    pub fn record(processes: &[ProcessId], time: Duration, dir: &Path) -> Result<Layers> {
        let data = dir.join("perf.data");
        let pids: Vec<String> = processes.iter().map(|p| p.pid.to_string()).collect();
        let seconds = time.min(LONGEST).as_secs_f64().to_string();
        let mut record = Command::new("perf");
        record.args(["record", "-q", "-F", FREQUENCY, "-g", "-p", &pids.join(","), "-o"]).arg(&data);
        process::run("perf", record.args(["--", "sleep", &seconds]))?;
        let text = process::run("perf", Command::new("perf").args(["script", "-F", "ip,sym", "-i"]).arg(&data))?;
        let layers = Layers::parse(&text);
        match layers.total() {
            0 => Err(LabError::new("perf", "no samples")),
            _ => Ok(layers),
        }
    }
}

/// The layer of one stack, innermost function first.
fn layer(stack: &[(u64, &str)]) -> &'static str {
    let Some((address, symbol)) = stack.first() else { return REST };
    if *address >= KERNEL {
        let within = |names: &[&str]| stack.iter().any(|(_, s)| names.iter().any(|n| s.contains(n)));
        let known = IN_KERNEL.iter().find(|(_, names)| within(names));
        return known.map_or("kernel: rest", |(layer, _)| layer);
    }
    // `<a::B as c::D>::f`, `<&mut a::B as …>` are of a.
    let name = symbol.trim_start_matches(['<', '&', '*', '(']).trim_start_matches("mut ").trim_start_matches("dyn ");
    let known = IN_PROGRAM.iter().find(|(_, names)| names.iter().any(|n| name.starts_with(n)));
    known.map_or(REST, |(layer, _)| layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_belongs_to_what_was_asked_of_the_kernel_or_to_the_package_that_ran() {
        let text = "
ffffffffb1000000 finish_task_switch.isra.0
ffffffffb1000001 io_schedule
ffffffffb1000002 jbd2_log_wait_commit
    7f0000000001 fdatasync

ffffffffb1000000 _raw_spin_unlock_irqrestore
ffffffffb1000003 tcp_sendmsg

    561000000001 <h2::proto::streams::store::Ptr as core::ops::deref::Deref>::deref

    561000000002 <&mut triarch_mvcc::apply::Batch as core::fmt::Debug>::fmt

    561000000003 go.etcd.io/etcd/server/v3/storage/wal.(*WAL).Save

    561000000004 [unknown]
";
        let expected = ["kernel: disk", "kernel: network", "HTTP/2", "store", "log", "rest"];
        assert_eq!(Layers::parse(text).samples, expected.map(|layer| (layer, 1)).into());
    }

    #[test]
    fn nothing_is_no_sample() {
        assert_eq!(Layers::parse("\n\n").total(), 0);
    }
}
