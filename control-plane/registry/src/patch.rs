//! patch: JSON, merge and strategic merge patches, applied to the object as
//! clients see it and then judged like any update.

use bytes::Bytes;
use serde_json::Value;
use triarch_api::decode::{self as api_decode};
use triarch_api::patch;
use triarch_api::status::{ErrorList, FieldError, Status};

use crate::update::{View, as_scale};
use crate::{
    FieldValidation, Kind, Registry, RequestContext, Response, SubresourceHandler, Target, WriteOptions, decode,
    encode, err, scale,
};

/// How a patch body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

/// What PATCH accepts, as the 415 lists it.
pub const PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

impl PatchType {
    /// By media type, without parameters.
    pub fn of(content_type: &str) -> Option<PatchType> {
        match content_type {
            "application/json-patch+json" => Some(PatchType::Json),
            "application/merge-patch+json" => Some(PatchType::Merge),
            "application/strategic-merge-patch+json" => Some(PatchType::Strategic),
            _ => None,
        }
    }
}

impl Registry {
    /// Without a resourceVersion in the patch a lost race is run again; with
    /// one it is a conflict, because the patched object then names an old one.
    pub async fn patch(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        how: PatchType,
        body: Bytes,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        let kind = target.kind;
        let view = match self.handler(target)? {
            None => View::Whole,
            Some(SubresourceHandler::Status) => View::Status,
            Some(SubresourceHandler::View { merge }) => View::Merge(merge),
            Some(SubresourceHandler::Scale { spec_replicas, status_replicas, selector }) => {
                let change = |parent: &Value| {
                    let shown = scale::from_parent(parent, spec_replicas, status_replicas, selector);
                    let patched = apply(
                        scale::SCHEMA,
                        ("autoscaling", "v1", "Scale"),
                        &shown,
                        how,
                        &body,
                        options.field_validation,
                        ctx,
                    )?;
                    scale::into_parent(parent, &patched, spec_replicas)
                };
                let response = self.change(ctx, target, View::Whole, &change, options).await?;
                return Ok(as_scale(response, spec_replicas, status_replicas, selector));
            }
            Some(_) => return Err(Status::method_not_supported(err::resource(kind), "patch")),
        };
        let change = |old: &Value| {
            let mut patched = apply(
                kind.schema,
                (kind.group, kind.version, kind.kind),
                old,
                how,
                &body,
                options.field_validation,
                ctx,
            )?;
            check_type(kind, &patched)?;
            encode::normalize(kind, &mut patched)?;
            Ok(patched)
        };
        self.change(ctx, target, view, &change, options).await
    }
}

fn check_type(kind: &Kind, patched: &Value) -> Result<(), Status> {
    let text = |field: &str| patched.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, name) = (text("apiVersion"), text("kind"));
    if (!api_version.is_empty() && api_version != kind.api_version()) || (!name.is_empty() && name != kind.kind) {
        return Err(err::bad_request(format!(
            "the API version in the data ({api_version}, Kind={name}) does not match the expected API version ({}, Kind={})",
            kind.api_version(),
            kind.kind
        )));
    }
    Ok(())
}

/// The patched object, decoded as strictly as was asked.
fn apply(
    schema: &str,
    gvk: (&str, &str, &str),
    old: &Value,
    how: PatchType,
    body: &[u8],
    validation: FieldValidation,
    ctx: &RequestContext,
) -> Result<Value, Status> {
    let ty = encode::schema_of(schema)?;
    let limits = patch::Limits::default();
    let patched = match how {
        PatchType::Json => patch::json(old, body, &limits),
        PatchType::Merge => patch::merge(old, body, &limits),
        PatchType::Strategic => patch::strategic(ty, old, body, &limits),
    }
    .map_err(|e| e.status())?;
    let refused = |why: String| {
        let mut errors = ErrorList::new();
        errors.push(FieldError::invalid("patch", patched.to_string(), why));
        Status::invalid(("", ""), "", &errors)
    };
    let decoded = api_decode::value(ty, patched.clone(), decode::strictness(validation), &limits.decode)
        .map_err(|e| refused(e.to_string()))?;
    if let (FieldValidation::Strict, Some(message)) = (validation, decoded.strict_message()) {
        return Err(refused(message));
    }
    if validation == FieldValidation::Warn {
        decoded.strict_errors.into_iter().for_each(|w| ctx.warn(w));
    }
    let mut value = decoded.value;
    if let Some(map) = value.as_object_mut() {
        let (group, version, kind) = gvk;
        map.entry("kind").or_insert_with(|| kind.into());
        map.entry("apiVersion")
            .or_insert_with(|| if group.is_empty() { version.into() } else { format!("{group}/{version}").into() });
    }
    Ok(value)
}
