//! `metav1.Status`: every failure that the API answers, in upstream's words.
//!
//! Constructors fix code, reason, message and details together, so that no
//! caller can pair them wrongly. The message formats are the interface.

use std::fmt;

use serde_json::{Map, Value, json};

pub use crate::field_error::{ErrorList, FieldError, FieldErrorKind, Path};
use crate::text::quote;

/// The text of a conflict that a newer write caused.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A group and a resource or kind. `Display` is `pods` or `deployments.apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupName {
    pub group: String,
    pub name: String,
}

impl GroupName {
    pub fn new(group: impl Into<String>, name: impl Into<String>) -> GroupName {
        GroupName { group: group.into(), name: name.into() }
    }
}

impl From<(&str, &str)> for GroupName {
    fn from((group, name): (&str, &str)) -> GroupName {
        GroupName::new(group, name)
    }
}

impl From<&GroupName> for GroupName {
    fn from(g: &GroupName) -> GroupName {
        g.clone()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.name) } else { write!(f, "{}.{}", self.name, self.group) }
    }
}

/// One of `details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: i32,
}

/// A failure (or, with `success`, the answer to a delete).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: u16,
    /// Empty for an unknown reason.
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<Details>>,
    pub success: bool,
    /// `metadata.continue`: how a list that expired can go on.
    pub continue_token: String,
}

fn details(gr: &GroupName, name: &str) -> Option<Box<Details>> {
    Some(Box::new(Details { group: gr.group.clone(), kind: gr.name.clone(), name: name.into(), ..Details::default() }))
}

impl Status {
    fn failure(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None, success: false, continue_token: String::new() }
    }
    fn with(mut self, details: Option<Box<Details>>) -> Status {
        self.details = details;
        self
    }
    fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_with(Box::default)
    }
    /// Sets `details.retryAfterSeconds`.
    #[must_use]
    pub fn retry_after(mut self, seconds: i32) -> Status {
        self.details_mut().retry_after_seconds = seconds;
        self
    }
    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, message: &str, field: &str) -> Status {
        self.details_mut().causes.push(Cause { reason: reason.into(), message: message.into(), field: field.into() });
        self
    }

    /// `{"kind":"Status","status":"Success"…}`, as deletions answer.
    pub fn success(gr: impl Into<GroupName>, name: &str, uid: &str) -> Status {
        let mut d = details(&gr.into(), name);
        if let Some(d) = &mut d {
            d.uid = uid.into();
        }
        Status {
            code: 200,
            reason: "",
            message: String::new(),
            details: d,
            success: true,
            continue_token: String::new(),
        }
    }

    /// What creating something about an object answers (a binding, an eviction).
    pub fn created() -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
    }

    pub fn not_found(gr: impl Into<GroupName>, name: &str) -> Status {
        let gr = gr.into();
        Self::failure(404, "NotFound", format!("{gr} {} not found", quote(name))).with(details(&gr, name))
    }
    /// For a path or resource that does not exist.
    pub fn no_such_resource() -> Status {
        Self::failure(404, "NotFound", "the server could not find the requested resource").with(Some(Box::default()))
    }
    pub fn already_exists(gr: impl Into<GroupName>, name: &str) -> Status {
        let gr = gr.into();
        Self::failure(409, "AlreadyExists", format!("{gr} {} already exists", quote(name))).with(details(&gr, name))
    }
    pub fn generate_name_conflict(gr: impl Into<GroupName>, name: &str, retry: i32) -> Status {
        let gr = gr.into();
        let message = format!(
            "{gr} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::failure(409, "AlreadyExists", message).with(details(&gr, name)).retry_after(retry)
    }
    pub fn conflict(gr: impl Into<GroupName>, name: &str, why: impl fmt::Display) -> Status {
        let gr = gr.into();
        let message = format!("Operation cannot be fulfilled on {gr} {}: {why}", quote(name));
        Self::failure(409, "Conflict", message).with(details(&gr, name))
    }
    /// Server-side apply: fields that other managers own.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Status {
        Self::failure(409, "Conflict", message).with(Some(Box::new(Details { causes, ..Details::default() })))
    }
    pub fn invalid(gk: impl Into<GroupName>, name: &str, errs: &ErrorList) -> Status {
        let gk = gk.into();
        let mut message = format!("{gk} {} is invalid", quote(name));
        if !errs.is_empty() {
            message.push_str(&format!(": {errs}"));
        }
        let mut s = Self::failure(422, "Invalid", message).with(details(&gk, name));
        let cause =
            |e: &FieldError| Cause { reason: e.kind.reason().into(), message: e.body(), field: e.field.clone() };
        s.details_mut().causes = errs.iter().map(cause).collect();
        s
    }
    /// `name` and the resource may be empty, as for non-resource requests.
    pub fn forbidden(gr: impl Into<GroupName>, name: &str, why: impl fmt::Display) -> Status {
        let gr = gr.into();
        let message = match (gr.name.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{gr} is forbidden: {why}"),
            (false, false) => format!("{gr} {} is forbidden: {why}", quote(name)),
        };
        Self::failure(403, "Forbidden", message).with(details(&gr, name))
    }
    pub fn unauthorized(message: &str) -> Status {
        Self::failure(401, "Unauthorized", if message.is_empty() { "not authorized" } else { message })
    }
    pub fn bad_request(message: impl Into<String>) -> Status {
        Self::failure(400, "BadRequest", message)
    }
    /// A body that could not be decoded into `kind`.
    pub fn undecodable(kind: &str, version: &str, why: impl fmt::Display) -> Status {
        Self::bad_request(format!("{kind} in version {} cannot be handled as a {kind}: {why}", quote(version)))
    }
    /// 410: the revision is gone; list again.
    pub fn expired(message: impl Into<String>) -> Status {
        Self::failure(410, "Expired", message)
    }
    pub fn gone(message: impl Into<String>) -> Status {
        Self::failure(410, "Gone", message)
    }
    pub fn timeout(message: impl fmt::Display, retry: i32) -> Status {
        Self::failure(504, "Timeout", format!("Timeout: {message}")).retry_after(retry)
    }
    /// A resourceVersion that this replica has not reached.
    pub fn too_large_rv(asked: u64, current: u64, retry: i32) -> Status {
        Self::timeout(format!("Too large resource version: {asked}, current: {current}"), retry).cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        )
    }
    pub fn server_timeout(gr: impl Into<GroupName>, operation: &str, retry: i32) -> Status {
        let gr = gr.into();
        let message =
            format!("The {operation} operation against {gr} could not be completed at this time, please try again.");
        Self::failure(500, "ServerTimeout", message).with(details(&gr, operation)).retry_after(retry)
    }
    pub fn too_many_requests(message: impl Into<String>, retry: i32) -> Status {
        Self::failure(429, "TooManyRequests", message).retry_after(retry)
    }
    pub fn service_unavailable(message: impl Into<String>) -> Status {
        Self::failure(503, "ServiceUnavailable", message)
    }
    pub fn method_not_supported(gr: impl Into<GroupName>, action: &str) -> Status {
        let gr = gr.into();
        let message = format!("{action} is not supported on resources of kind {}", quote(&gr.to_string()));
        Self::failure(405, "MethodNotAllowed", message).with(details(&gr, ""))
    }
    /// A method that the path does not have.
    pub fn method_not_allowed() -> Status {
        Self::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .with(Some(Box::default()))
    }
    pub fn internal(why: impl fmt::Display) -> Status {
        Self::failure(500, "InternalError", format!("Internal error occurred: {why}")).cause("", &why.to_string(), "")
    }
    pub fn request_too_large(message: impl fmt::Display) -> Status {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity is too large: {message}"))
    }
    /// 422 without a reason that clients are told: a patch that does not apply.
    pub fn unprocessable() -> Status {
        Self::failure(422, "Invalid", "the server rejected our request due to an error in our request")
            .with(Some(Box::default()))
    }
    pub fn unsupported_media(accepted: &[&str]) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, "UnsupportedMediaType", message)
    }
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, "NotAcceptable", message)
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// The object as served, with kind and apiVersion first.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind".into(), json!("Status"));
        out.insert("apiVersion".into(), json!("v1"));
        let metadata =
            if self.continue_token.is_empty() { json!({}) } else { json!({"continue": self.continue_token}) };
        out.insert("metadata".into(), metadata);
        out.insert("status".into(), json!(if self.success { "Success" } else { "Failure" }));
        let text = |m: &mut Map<String, Value>, key: &str, v: &str| {
            if !v.is_empty() {
                m.insert(key.into(), v.into());
            }
        };
        text(&mut out, "message", &self.message);
        text(&mut out, "reason", self.reason);
        if let Some(d) = &self.details {
            let mut m = Map::new();
            text(&mut m, "name", &d.name);
            text(&mut m, "group", &d.group);
            text(&mut m, "kind", &d.kind);
            text(&mut m, "uid", &d.uid);
            if !d.causes.is_empty() {
                let one = |c: &Cause| {
                    let mut m = Map::new();
                    text(&mut m, "reason", &c.reason);
                    text(&mut m, "message", &c.message);
                    text(&mut m, "field", &c.field);
                    Value::Object(m)
                };
                m.insert("causes".into(), d.causes.iter().map(one).collect());
            }
            if d.retry_after_seconds != 0 {
                m.insert("retryAfterSeconds".into(), d.retry_after_seconds.into());
            }
            out.insert("details".into(), Value::Object(m));
        }
        if !self.success {
            out.insert("code".into(), self.code.into());
        }
        Value::Object(out)
    }

    /// The object as served: fields in upstream's order.
    pub fn to_json(&self) -> Vec<u8> {
        let ty = crate::schema::lookup("meta/v1.Status").expect("the table has Status");
        crate::canon::to_json(ty, &self.to_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_codes_and_details_are_upstreams() {
        let s = Status::not_found(("apps", "deployments"), "x");
        assert_eq!((s.code, s.message.as_str()), (404, r#"deployments.apps "x" not found"#));
        assert_eq!(s.to_value()["details"], json!({"name": "x", "group": "apps", "kind": "deployments"}));

        let mut errs = ErrorList::new();
        errs.push(FieldError::required("spec.a", ""));
        let s = Status::invalid(("apps", "Deployment"), "x", &errs);
        assert_eq!(s.message, r#"Deployment.apps "x" is invalid: spec.a: Required value"#);
        errs.push(FieldError::invalid("spec.b", 3, "too odd"));
        let s = Status::invalid(("apps", "Deployment"), "x", &errs);
        assert_eq!(
            s.message,
            r#"Deployment.apps "x" is invalid: [spec.a: Required value, spec.b: Invalid value: 3: too odd]"#
        );
        assert_eq!(
            s.to_value()["details"]["causes"][1],
            json!({"reason": "FieldValueInvalid", "message": "Invalid value: 3: too odd", "field": "spec.b"})
        );

        let s = Status::conflict(("", "pods"), "p", MODIFIED);
        assert_eq!(s.message, format!(r#"Operation cannot be fulfilled on pods "p": {MODIFIED}"#));
        let s = Status::too_large_rv(9, 3, 1);
        assert_eq!((s.code, s.message.as_str()), (504, "Timeout: Too large resource version: 9, current: 3"));
        assert_eq!(s.to_value()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    }

    #[test]
    fn the_served_object_keeps_upstreams_field_order() {
        let text = String::from_utf8(Status::not_found(("", "pods"), "p").to_json()).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"p\" not found","reason":"NotFound","details":{"name":"p","kind":"pods"},"code":404}"#
        );
    }
}
