//! The HTTP proxy to pods and Services (`…/proxy/PATH`).

use http::header::{AUTHORIZATION, CONNECTION, HOST, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use triarch_api::status::Status;
use triarch_apiserver::connect::ConnectRequest;
use triarch_apiserver::respond::{self, Body};
use triarch_mvcc::{ListRequest, Prefix};
use triarch_rpc::node::{DialRequest, tunnel_open};

use super::wire::into_stream;
use super::{Connectors, text, tunnel_status};

/// A connection inside a node must be made within this time, milliseconds.
const DIAL_MS: u32 = 10_000;

/// `[scheme:]name[:port]` as it stands in the path.
fn split(name: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = name.split(':').collect();
    match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => ("", name, ""),
    }
}

pub async fn pod(c: &Connectors, r: ConnectRequest) -> Result<Response<Body>, Status> {
    let (scheme, name, port) = split(&r.name);
    let (scheme, port) = (scheme.to_owned(), port.to_owned());
    let pod = c.pod(&r.namespace, name).await?;
    let ip = text(&pod, "/status/podIP");
    if ip.is_empty() {
        return Err(Status::service_unavailable("address not allowed"));
    }
    let port = if port.is_empty() { first_port(&pod) } else { named_port(&pod, &port) };
    let port = port.ok_or_else(|| Status::service_unavailable("no port is known for the pod"))?;
    let node = text(&pod, "/spec/nodeName").to_owned();
    forward(c, r, &node, &scheme, &format!("{ip}:{port}")).await
}

fn ports(pod: &Value) -> Vec<Value> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
    containers.iter().flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default()).collect()
}

fn first_port(pod: &Value) -> Option<u64> {
    ports(pod).iter().find_map(|p| p["containerPort"].as_u64()).or(Some(80))
}

fn named_port(pod: &Value, port: &str) -> Option<u64> {
    port.parse()
        .ok()
        .or_else(|| ports(pod).iter().find(|p| p["name"] == port).and_then(|p| p["containerPort"].as_u64()))
}

pub async fn service(c: &Connectors, r: ConnectRequest) -> Result<Response<Body>, Status> {
    let (scheme, name, port) = split(&r.name);
    let (scheme, name, port) = (scheme.to_owned(), name.to_owned(), port.to_owned());
    let service = c.object("services", &r.namespace, &name).await?;
    let listed = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let chosen = listed.iter().find(|p| {
        let number = port.parse::<u64>().ok();
        (port.is_empty() && listed.len() == 1)
            || p["name"] == port.as_str()
            || (number.is_some() && p["port"].as_u64() == number)
    });
    let none = || Status::service_unavailable(format!("no endpoints available for service {:?}", r.name));
    let port_name = chosen.ok_or_else(none)?["name"].as_str().unwrap_or_default().to_owned();
    let prefix = Prefix::namespaced("endpointslices.discovery.k8s.io", r.namespace.as_str());
    let slices = c.registry.mvcc().list(&ListRequest { prefix, after: None, limit: 0, at: None });
    let mut found = Vec::new();
    for slice in slices.map(|l| l.items).unwrap_or_default().iter().map(triarch_gateway::node_set::value) {
        if slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str) != Some(&name) {
            continue;
        }
        let ports = slice["ports"].as_array().cloned().unwrap_or_default();
        let Some(port) = ports.iter().find(|p| p["name"].as_str().unwrap_or_default() == port_name) else { continue };
        for e in slice["endpoints"].as_array().into_iter().flatten() {
            if e.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false)
                && let (Some(ip), Some(node)) =
                    (e.pointer("/addresses/0").and_then(Value::as_str), e["nodeName"].as_str())
            {
                found.push((node.to_owned(), format!("{ip}:{}", port["port"])));
            }
        }
    }
    if found.is_empty() {
        return Err(none());
    }
    let pick = c.registry.env().random_below(found.len() as u64) as usize;
    let (node, address) = found.swap_remove(pick);
    forward(c, r, &node, &scheme, &address).await
}

async fn forward(
    c: &Connectors,
    r: ConnectRequest,
    node: &str,
    scheme: &str,
    address: &str,
) -> Result<Response<Body>, Status> {
    if scheme == "https" {
        return Err(Status::service_unavailable("proxying to https backends is not served"));
    }
    if node.is_empty() {
        return Err(Status::service_unavailable("the backend is on no node"));
    }
    // `…/proxy` without a slash at its end: relative links would break.
    let prefix = prefix_of(&r);
    if r.rest.is_empty() && !r.uri.path().ends_with('/') && r.method == http::Method::GET {
        let mut response = Response::new(respond::full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let query = r.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        if let Ok(value) = HeaderValue::from_str(&format!("{prefix}/{query}")) {
            response.headers_mut().insert(LOCATION, value);
        }
        return Ok(response);
    }
    let dial = DialRequest { address: address.to_owned(), timeout_ms: DIAL_MS };
    let tunnel = c.hub.open(node, tunnel_open::Kind::Dial(dial)).await.map_err(tunnel_status)?;
    let unavailable = |e: hyper::Error| Status::service_unavailable(format!("error trying to reach service: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(into_stream(tunnel))).await.map_err(unavailable)?;
    tokio::spawn(async move {
        let _ended = connection.with_upgrades().await;
    });
    let query = r.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let uri: Uri = format!("/{}{query}", r.rest.trim_start_matches('/'))
        .parse()
        .map_err(|e| Status::bad_request(format!("the path cannot be proxied: {e}")))?;
    let mut request = Request::new(r.body);
    *request.method_mut() = r.method.clone();
    *request.uri_mut() = uri;
    for (name, value) in r.headers.iter().filter(|(n, _)| **n != AUTHORIZATION && **n != HOST && **n != CONNECTION) {
        request.headers_mut().append(name, value.clone());
    }
    if let Ok(host) = HeaderValue::from_str(address) {
        request.headers_mut().insert(HOST, host);
    }
    let answer = sender.send_request(request).await.map_err(unavailable)?;
    let (mut head, body) = answer.into_parts();
    head.headers.remove(CONNECTION);
    // A redirect inside the backend stays below the proxy's path.
    if let Some(location) = head.headers.get(LOCATION).and_then(|l| l.to_str().ok())
        && location.starts_with('/')
        && let Ok(value) = HeaderValue::from_str(&format!("{prefix}{location}"))
    {
        head.headers.insert(LOCATION, value);
    }
    Ok(Response::from_parts(head, body.map_err(std::io::Error::other).boxed_unsync()))
}

/// The part of the request's path up to `proxy`.
fn prefix_of(r: &ConnectRequest) -> String {
    let path = r.uri.path();
    match path.find("/proxy") {
        Some(at) => path[..at + "/proxy".len()].to_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_proxied_name_may_carry_a_scheme_and_a_port() {
        assert_eq!(split("web"), ("", "web", ""));
        assert_eq!(split("web:http"), ("", "web", "http"));
        assert_eq!(split("https:web:8443"), ("https", "web", "8443"));
        assert_eq!(split("https:web:"), ("https", "web", ""));
    }
}
