//! ServiceAccount, and its `token` subresource.

use serde_json::{Value, json};
use triarch_api::status::{ErrorList, Status};
use triarch_registry::{ActionContext, ActionOutcome, DeleteRule, Kind, Subresource, SubresourceHandler, Verb};

use crate::describe;
use crate::field::{self, Path};
use crate::meta;
use crate::print::{AGE, NAME, text};
use crate::value::{at, child, default, get, list, opt, opt_int, str_at, str_of};

const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

pub static KIND: Kind = Kind {
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    schema: "core/v1.ServiceAccount",
    resource: "serviceaccounts",
    subresources: &[Subresource {
        name: "token",
        verbs: &[Verb::Create],
        handler: SubresourceHandler::Action(token),
        response: ("authentication.k8s.io", "v1", "TokenRequest"),
        schema: "authentication/v1.TokenRequest",
    }],
    columns: &[NAME, text("Secrets", describe::SERVICE_ACCOUNT_SECRETS, |v, _| list(v, "secrets").len().into()), AGE],
    delete: DeleteRule::Object,
    validate_name: meta::subdomain_name,
    ..Kind::BASE
};

/// Checks and completes a TokenRequest; the server signs the token.
fn token(ctx: &ActionContext<'_>, mut body: Value) -> Result<ActionOutcome, Status> {
    if let Some(refused) = misnamed(ctx, get(&body, "metadata")) {
        return Err(refused);
    }
    let spec = child(&mut body, "spec");
    default(spec, "expirationSeconds", 3600);
    let mut errs = ErrorList::new();
    let p = Path::new("spec");
    let seconds = opt_int(spec, "expirationSeconds").unwrap_or(0);
    if seconds < MIN_SECONDS {
        field::invalid(
            &mut errs,
            p.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > MAX_SECONDS {
        let detail = "may not specify a duration larger than 2^32 seconds";
        field::invalid(&mut errs, p.child("expirationSeconds"), seconds, detail);
    }
    if !errs.is_empty() {
        return Err(Status::invalid(("authentication.k8s.io", "TokenRequest"), "", &errs));
    }
    bound_object(ctx, get(&body, "spec"))?;
    let metadata = child(&mut body, "metadata");
    for (key, value) in [("name", ctx.name), ("namespace", ctx.namespace)] {
        crate::value::set(metadata, key, value);
    }
    body["status"] = json!({});
    Ok(ActionOutcome::Issue { request: body })
}

/// A request that names another account, or another one of the same name.
fn misnamed(ctx: &ActionContext<'_>, metadata: &Value) -> Option<Status> {
    for (key, want) in [("name", ctx.name), ("namespace", ctx.namespace)] {
        let sent = str_of(metadata, key);
        if !sent.is_empty() && sent != want {
            let mut errs = ErrorList::new();
            let detail = format!("must match the service account {key} if specified");
            field::invalid(&mut errs, Path::new("metadata").child(key), sent, detail);
            return Some(Status::invalid(("authentication.k8s.io", "TokenRequest"), ctx.name, &errs));
        }
    }
    let (sent, have) = (str_of(metadata, "uid"), str_at(ctx.object, &["metadata", "uid"]));
    (!sent.is_empty() && sent != have).then(|| {
        let why =
            format!("the UID in the token request ({sent}) does not match the UID of the service account ({have})");
        Status::conflict(("authentication.k8s.io", "TokenRequest"), ctx.name, why)
    })
}

/// A token may be bound to a Pod, a Secret or a Node that exists.
fn bound_object(ctx: &ActionContext<'_>, spec: &Value) -> Result<(), Status> {
    let Some(bound) = opt(spec, "boundObjectRef") else { return Ok(()) };
    let (kind, name, uid) = (str_of(bound, "kind"), str_of(bound, "name"), str_of(bound, "uid"));
    let (resource, namespace) = match (str_of(bound, "apiVersion"), kind) {
        ("v1", "Pod") => ("pods", ctx.namespace),
        ("v1", "Secret") => ("secrets", ctx.namespace),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    };
    let Some(stored) = crate::stored::get(ctx.rules.store, resource, namespace, name) else {
        return Err(Status::not_found(("", resource), name));
    };
    let have = str_at(&stored, &["metadata", "uid"]);
    if !uid.is_empty() && uid != have {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(("", kind), name, why));
    }
    if resource == "pods" && at(&stored, &["spec", "serviceAccountName"]).as_str().unwrap_or("") != ctx.name {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            ctx.name
        )));
    }
    Ok(())
}
