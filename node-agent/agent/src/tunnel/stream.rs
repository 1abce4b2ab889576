//! exec, attach and port-forward: the client's upgraded connection, handed to
//! the runtime's streaming server as it is.
//!
//! The agent asks CRI for a URL, dials it inside the node and sends the client's
//! own request head with another path and Host, so SPDY and WebSocket are the
//! runtime's business; a refusal comes back as the refusal it is.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use triarch_kubelet::runtime::{Phase, StreamTarget};
use triarch_rpc::node::{StreamRequest, TunnelFrame};

use super::{Frames, Refusal, copy};
use crate::node::Node;
use crate::session::Inbound;

const MAX_HEAD: usize = 64 * 1024;

pub(crate) async fn serve(
    node: &Arc<Node>,
    r: StreamRequest,
    tx: &Frames,
    inbound: Inbound<TunnelFrame>,
) -> Result<(), Refusal> {
    let target = target(node, &r).await?;
    let runtime = &node.kubelet().context().runtime;
    let url = runtime.stream_url(&target).await.map_err(|e| Refusal::internal(e.to_string()))?;
    let (address, path) = split(&url)
        .ok_or_else(|| Refusal::internal(format!("the runtime's streaming URL is not understood: {url}")))?;
    let head = rewrite(&r.request_head, &path, &address)
        .ok_or_else(|| Refusal::bad_request("the request's head is not HTTP/1.1"))?;
    let dialled = tokio::net::TcpStream::connect(&address).await;
    let mut stream =
        dialled.map_err(|e| Refusal::internal(format!("error dialing backend: dial tcp {address}: {e}")))?;
    let _ = stream.set_nodelay(true);
    stream.write_all(&head).await.map_err(|e| Refusal::internal(e.to_string()))?;
    copy::both_ways(node.env(), stream, tx, inbound).await;
    Ok(())
}

async fn target(node: &Node, r: &StreamRequest) -> Result<StreamTarget, Refusal> {
    let (ns, name) = (&r.namespace, &r.pod);
    let pod = node.kubelet().find(ns, name, &r.uid).ok_or_else(|| Refusal::not_found("pod does not exist"))?;
    let runtime = &node.kubelet().context().runtime;
    let seen = runtime.observe(&pod.metadata.uid).await.map_err(|e| Refusal::internal(e.to_string()))?;
    if r.verb == "portforward" {
        let sandbox = seen.sandbox().filter(|s| s.ready).map(|s| s.id.clone());
        let sandbox = sandbox.ok_or_else(|| Refusal::not_found(format!("pod not found (\"{name}_{ns}\")")))?;
        return Ok(StreamTarget::PortForward { sandbox, ports: r.ports.clone() });
    }
    let running = seen.container(&r.container).filter(|c| c.phase == Phase::Running);
    let missing = || Refusal::not_found(format!("container not found (\"{}\")", r.container));
    let container = running.ok_or_else(missing)?.id.clone();
    match r.verb.as_str() {
        "exec" => Ok(StreamTarget::Exec {
            container,
            command: r.command.clone(),
            stdin: r.stdin,
            stdout: r.stdout,
            // With a terminal there is one stream for both.
            stderr: r.stderr && !r.tty,
            tty: r.tty,
        }),
        "attach" => {
            let tty = pod.container(&r.container).is_some_and(|c| c.tty);
            Ok(StreamTarget::Attach { container, stdin: r.stdin, stdout: r.stdout, stderr: r.stderr && !tty, tty })
        }
        other => Err(Refusal::bad_request(format!("there is no {other:?} on a node"))),
    }
}

/// `http://127.0.0.1:PORT/exec/TOKEN` as address and path.
fn split(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("http://")?;
    let (address, path) = rest.split_once('/')?;
    Some((address.to_owned(), format!("/{path}")))
}

/// The head with another path and Host and without credentials.
fn rewrite(head: &[u8], path: &str, host: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(head).ok().filter(|_| head.len() <= MAX_HEAD)?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let method = lines.next()?.split(' ').next().filter(|m| !m.is_empty())?;
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for line in lines {
        let (name, _) = line.split_once(':')?;
        let name = name.trim().to_ascii_lowercase();
        if matches!(name.as_str(), "host" | "authorization" | "cookie") || name.starts_with("x-remote-") {
            continue;
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    Some(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_goes_to_the_runtime_without_credentials() {
        let head =
            b"POST /api/v1/namespaces/d/pods/p/exec?command=ls HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer x\r\n\
            Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        let out = String::from_utf8(rewrite(head, "/exec/tok", "127.0.0.1:99").expect("understood")).expect("text");
        assert_eq!(
            out,
            "POST /exec/tok HTTP/1.1\r\nHost: 127.0.0.1:99\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        );
        assert_eq!(rewrite(b"", "/", "h"), None);
        assert_eq!(rewrite(b"GET / HTTP/1.1\r\nnonsense\r\n\r\n", "/", "h"), None);
    }

    #[test]
    fn the_streaming_url_is_taken_apart() {
        let expected = ("127.0.0.1:4000".to_owned(), "/exec/abc".to_owned());
        assert_eq!(split("http://127.0.0.1:4000/exec/abc"), Some(expected));
        assert_eq!(split("unix://x"), None);
    }
}
