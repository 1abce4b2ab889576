//! exec, attach, port-forward: the client's upgraded connection, handed to the
//! node's runtime byte for byte.

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, COOKIE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use triarch_api::status::Status;
use triarch_apiserver::connect::ConnectRequest;
use triarch_apiserver::respond::{self, Body};
use triarch_gateway::tunnels::Received;
use triarch_rpc::node::{StreamRequest, tunnel_open};

use super::wire::{pump, read_head};
use super::{Connectors, container, text, tunnel_status};

pub async fn serve(c: &Connectors, r: ConnectRequest) -> Result<Response<Body>, Status> {
    let pod = c.pod(&r.namespace, &r.name).await?;
    let node = text(&pod, "/spec/nodeName").to_owned();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", r.name)));
    }
    let forward = r.subresource == "portforward";
    let phase = text(&pod, "/status/phase");
    if !forward && matches!(phase, "Succeeded" | "Failed") {
        return Err(Status::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let flag = |k: &str| matches!(r.query.get(k), "true" | "1");
    let all = |k: &str| r.query.0.iter().filter(|(n, _)| n == k).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    let request = StreamRequest {
        verb: r.subresource.clone(),
        namespace: r.namespace.clone(),
        pod: r.name.clone(),
        uid: text(&pod, "/metadata/uid").to_owned(),
        container: if forward { String::new() } else { container(&pod, r.query.get("container"))? },
        command: all("command"),
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        tty: flag("tty"),
        ports: all("ports").iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect(),
        request_head: head(&r),
    };
    if r.subresource == "exec" && request.command.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command for the container"));
    }
    let Some(upgrade) = r.upgrade else { return Err(Status::bad_request("Upgrade request required")) };
    let mut tunnel = c.hub.open(&node, tunnel_open::Kind::Stream(request)).await.map_err(tunnel_status)?;
    let answer = read_head(&mut tunnel).await.map_err(tunnel_status)?;
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        // A refusal is passed on as it is: kubectl falls back by it.
        let rest = futures::stream::unfold((Some(tunnel), answer.rest), |(tunnel, ready)| async move {
            let mut tunnel = tunnel?;
            if !ready.is_empty() {
                return Some((Ok(ready), (Some(tunnel), Bytes::new())));
            }
            match tunnel.recv().await {
                Ok(Received::Data(d)) => Some((Ok(d), (Some(tunnel), Bytes::new()))),
                Ok(Received::Eof) | Err(_) => None,
            }
        });
        let mut response = Response::new(respond::stream(rest));
        *response.status_mut() = answer.status;
        for (name, value) in answer.headers.iter().filter(|(n, _)| *n != "connection" && *n != "transfer-encoding") {
            response.headers_mut().append(name, value.clone());
        }
        return Ok(response);
    }
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let mut client = TokioIo::new(upgraded);
                if client.write_all(&answer.rest).await.is_ok() {
                    pump(client, tunnel).await;
                }
            }
            Err(e) => tracing::debug!(error = %e, "the client did not upgrade"),
        }
    });
    let mut response = Response::new(respond::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

/// The request's head as HTTP/1.1, without what must not leave this process.
fn head(r: &ConnectRequest) -> Bytes {
    let mut out = BytesMut::new();
    let path = r.uri.path_and_query().map_or("/", |p| p.as_str());
    out.extend_from_slice(format!("{} {path} HTTP/1.1\r\n", r.method).as_bytes());
    for (name, value) in &r.headers {
        let token = name == "sec-websocket-protocol" && value.as_bytes().starts_with(b"base64url.bearer.");
        if name == AUTHORIZATION || name == COOKIE || token {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.freeze()
}
