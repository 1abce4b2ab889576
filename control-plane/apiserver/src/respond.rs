//! Responses: one body type for everything, and the forms that answers take.

use std::io;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use triarch_api::status::Status;

use crate::pretty::{self, Indenter};

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub const JSON: &str = "application/json";

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn stream(chunks: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|c| c.map(Frame::data))).boxed_unsync()
}

/// A response with a content type.
pub fn response(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut r = Response::new(body);
    *r.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    r
}

pub fn text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut r = response(code, "text/plain; charset=utf-8", full(text));
    r.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    r
}

/// What upstream's router says to a path that nobody serves.
pub fn page_not_found() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// JSON that is in memory whole.
pub fn json(code: u16, bytes: Bytes, indent: bool) -> Response<Body> {
    let body = if indent {
        pretty::indent(&bytes)
    } else {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        out.extend_from_slice(&bytes);
        out.push(b'\n');
        out.into()
    };
    response(code, JSON, full(body))
}

pub fn value(code: u16, v: &Value, indent: bool) -> Response<Body> {
    json(code, v.to_string().into(), indent)
}

/// JSON in chunks, indented on its way when asked for.
pub fn chunks(code: u16, chunks: impl Iterator<Item = Bytes> + Send + 'static, indent: bool) -> Response<Body> {
    let mut indenter = indent.then(Indenter::default);
    let chunks = chunks.map(move |c| {
        Ok(match &mut indenter {
            Some(i) => i.push(&c),
            None => c,
        })
    });
    response(code, JSON, stream(futures::stream::iter(chunks)))
}

/// An error as clients see it.
pub fn status(s: &Status, indent: bool) -> Response<Body> {
    let mut r = json(s.code, s.to_json().into(), indent);
    let retry = s.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        r.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    r
}
