//! `pods/log`.

use bytes::Bytes;
use http::Response;
use triarch_api::status::Status;
use triarch_apiserver::connect::ConnectRequest;
use triarch_apiserver::respond::{self, Body};
use triarch_gateway::tunnels::{Received, Tunnel};
use triarch_rpc::node::{LogsRequest, tunnel_open};

use super::{Connectors, container, text, tunnel_status};

pub async fn serve(c: &Connectors, r: ConnectRequest) -> Result<Response<Body>, Status> {
    let pod = c.pod(&r.namespace, &r.name).await?;
    let q = &r.query;
    let flag = |k: &str| matches!(q.get(k), "true" | "1");
    let number = |k: &str| -> Result<i64, Status> {
        match q.get(k) {
            "" => Ok(-1),
            v => v.parse().ok().filter(|n| *n >= 0).ok_or_else(|| {
                Status::bad_request(format!("{k}: Invalid value: {v:?}: must be greater than or equal to 0"))
            }),
        }
    };
    let request = LogsRequest {
        namespace: r.namespace.clone(),
        pod: r.name.clone(),
        uid: text(&pod, "/metadata/uid").to_owned(),
        container: container(&pod, q.get("container"))?,
        follow: flag("follow"),
        previous: flag("previous"),
        timestamps: flag("timestamps"),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        since_time: q.get("sinceTime").to_owned(),
        since_seconds: number("sinceSeconds")?.max(0),
    };
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        // Nothing has run yet: upstream answers with no content.
        return Ok(respond::text(200, Bytes::new()));
    }
    let mut tunnel = c.hub.open(node, tunnel_open::Kind::Logs(request)).await.map_err(tunnel_status)?;
    // The first frame says whether there is a log at all.
    let first = match tunnel.recv().await.map_err(tunnel_status)? {
        Received::Data(d) => d,
        Received::Eof => return Ok(respond::text(200, Bytes::new())),
    };
    let rest = futures::stream::unfold(Some((tunnel, first)), next);
    Ok(respond::response(200, "text/plain", respond::stream(rest)))
}

type State = Option<(Tunnel, Bytes)>;

async fn next(state: State) -> Option<(Result<Bytes, std::io::Error>, State)> {
    let (mut tunnel, ready) = state?;
    if !ready.is_empty() {
        return Some((Ok(ready), Some((tunnel, Bytes::new()))));
    }
    match tunnel.recv().await {
        Ok(Received::Data(d)) => Some((Ok(d), Some((tunnel, Bytes::new())))),
        Ok(Received::Eof) => None,
        Err(e) => Some((Err(std::io::Error::other(e)), None)),
    }
}
