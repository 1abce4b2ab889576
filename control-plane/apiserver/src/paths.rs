//! Paths that are not resources: discovery, version, health, metrics, OpenAPI.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Method, Response};
use serde_json::{Value, json};
use triarch_api::status::Status;

use crate::respond::{self, Body};
use crate::server::{ApiServer, Incoming, header};
use crate::{discovery, health, negotiate};

pub(crate) async fn serve(server: &Arc<ApiServer>, request: Incoming) -> Result<Response<Body>, Status> {
    let path = request.info.path.as_str();
    if !matches!(request.head.method, Method::GET | Method::HEAD) {
        return Ok(respond::text(405, "method not allowed\n"));
    }
    if let Some(answer) = health::answer(&server.parts.checks, path, &request.query) {
        return Ok(answer);
    }
    if let Some(page) = server.parts.pages.iter().find(|p| p.path == path) {
        return Ok(respond::response(200, page.content_type, respond::full((page.body)())));
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let kinds = server.registry().kinds();
    match parts.as_slice() {
        [""] => Ok(respond::value(200, &json!({"paths": index(server)}), request.indent)),
        ["version"] => Ok(respond::value(200, &server.parts.version.document(), request.indent)),
        ["metrics"] => metrics(server),
        ["openapi", rest @ ..] => server.openapi.serve(rest, &request),
        ["api"] if negotiate::aggregated(&request.head.headers)? => {
            Ok(document(&request, &discovery::aggregated(kinds, true), true))
        }
        ["apis"] if negotiate::aggregated(&request.head.headers)? => {
            Ok(document(&request, &discovery::aggregated(kinds, false), true))
        }
        ["api"] => Ok(document(&request, &discovery::core_versions(&server.parts.address), false)),
        ["apis"] => Ok(document(&request, &discovery::groups(kinds), false)),
        ["api", version] => Ok(found(&request, discovery::resources(kinds, "", version))),
        ["apis", group] => Ok(found(&request, discovery::one_group(kinds, group))),
        ["apis", group, version] => Ok(found(&request, discovery::resources(kinds, group, version))),
        _ => Ok(respond::page_not_found()),
    }
}

fn found(request: &Incoming, document_value: Option<Value>) -> Response<Body> {
    match document_value {
        Some(v) => document(request, &v, false),
        None => respond::page_not_found(),
    }
}

/// A discovery document; the aggregated one has a validator and answers 304.
fn document(request: &Incoming, value: &Value, aggregated: bool) -> Response<Body> {
    let bytes = Bytes::from(value.to_string());
    if !aggregated {
        let mut r = respond::json(200, bytes, request.indent);
        r.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        return r;
    }
    let etag = discovery::etag(&bytes);
    let same = header(&request.head.headers, IF_NONE_MATCH.as_str()).split(',').any(|t| t.trim() == etag);
    let mut r = if same {
        respond::response(304, discovery::AGGREGATED, respond::full(Bytes::new()))
    } else {
        let mut r = respond::json(200, bytes, request.indent);
        r.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED));
        r
    };
    r.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        r.headers_mut().insert(ETAG, etag);
    }
    r
}

fn metrics(server: &ApiServer) -> Result<Response<Body>, Status> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &server.parts.prometheus.lock()).map_err(Status::internal)?;
    Ok(respond::response(200, "application/openmetrics-text; version=1.0.0; charset=utf-8", respond::full(text)))
}

fn index(server: &ApiServer) -> Vec<String> {
    let mut out: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .into();
    for (group, versions) in server.registry().kinds().groups() {
        if group.is_empty() {
            out.extend(versions.iter().map(|v| format!("/api/{v}")));
        } else {
            out.push(format!("/apis/{group}"));
            out.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
        }
    }
    for check in &server.parts.checks {
        out.push(format!("/readyz/{}", check.name));
    }
    out.extend(server.parts.pages.iter().map(|p| p.path.to_owned()));
    out.sort();
    out
}
