//! The review kinds: questions about tokens and permissions, answered and not
//! stored.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_registry::{Authorizer, AuthzAttributes, Decision, Kind, RequestContext, UserInfo, Virtual};

use crate::authn::Authn;
use crate::rbac::Rbac;
use crate::stored::{strings, text};

/// Answers TokenReview, the access reviews, SelfSubjectRulesReview and
/// SelfSubjectReview.
pub struct Reviews {
    pub authn: Arc<Authn>,
    pub authorizer: Arc<dyn Authorizer>,
    pub rbac: Arc<Rbac>,
}

#[async_trait]
impl Virtual for Reviews {
    fn answers(&self, kind: &'static Kind) -> bool {
        matches!(kind.group, "authentication.k8s.io" | "authorization.k8s.io") && !kind.stored
    }

    async fn create(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Status> {
        let spec = object.get("spec").cloned().unwrap_or(Value::Null);
        object["status"] = match kind.kind {
            "TokenReview" => self.token(&spec).await,
            "SelfSubjectReview" => json!({"userInfo": user_json(&ctx.user)}),
            "SelfSubjectAccessReview" => self.access(&ctx.user, &spec).await,
            "SelfSubjectRulesReview" => self.rules(&ctx.user, text(&spec, "/namespace"))?,
            "SubjectAccessReview" => self.access(&subject(&spec), &spec).await,
            "LocalSubjectAccessReview" => {
                let asked = text(&spec, "/resourceAttributes/namespace");
                if asked != namespace {
                    let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
                    return Err(Status::bad_request(why));
                }
                self.access(&subject(&spec), &spec).await
            }
            other => return Err(Status::internal(format!("no answer for {other}"))),
        };
        Ok(object)
    }
}

impl Reviews {
    async fn token(&self, spec: &Value) -> Value {
        let mut audiences = strings(spec, "audiences");
        if audiences.is_empty() {
            audiences = self.authn.audiences.clone();
        }
        match self.authn.token(text(spec, "/token"), &audiences).await {
            Ok((user, matched)) => {
                json!({"authenticated": true, "user": user_json(&user), "audiences": matched})
            }
            Err(e) => json!({"user": {}, "error": format!("[invalid bearer token, {e}]")}),
        }
    }

    async fn access(&self, user: &UserInfo, spec: &Value) -> Value {
        let decision = self.authorizer.authorize(user, &attributes(spec)).await;
        let mut status = json!({"allowed": decision.allowed()});
        if matches!(decision, Decision::Deny { .. }) {
            status["denied"] = true.into();
        }
        if !decision.reason().is_empty() {
            status["reason"] = decision.reason().into();
        }
        status
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Result<Value, Status> {
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (mut resource, mut url) = (Vec::new(), Vec::new());
        for r in self.rbac.rules_for(user, namespace) {
            if !r.urls.is_empty() {
                url.push(json!({"verbs": r.verbs, "nonResourceURLs": r.urls}));
                continue;
            }
            let mut v = json!({"verbs": r.verbs, "apiGroups": r.groups, "resources": r.resources});
            if !r.names.is_empty() {
                v["resourceNames"] = json!(r.names);
            }
            resource.push(v);
        }
        Ok(json!({"resourceRules": resource, "nonResourceRules": url, "incomplete": false}))
    }
}

/// What an access review asks, as the authorizer takes it.
fn attributes(spec: &Value) -> AuthzAttributes {
    let Some(r) = spec.get("resourceAttributes").filter(|r| r.is_object()) else {
        return AuthzAttributes {
            verb: text(spec, "/nonResourceAttributes/verb").to_owned(),
            path: text(spec, "/nonResourceAttributes/path").to_owned(),
            ..AuthzAttributes::default()
        };
    };
    let field = |name: &str| r.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    AuthzAttributes {
        verb: field("verb"),
        resource_request: true,
        group: field("group"),
        version: field("version"),
        resource: field("resource"),
        subresource: field("subresource"),
        namespace: field("namespace"),
        name: field("name"),
        path: String::new(),
        field_selector: text(r, "/fieldSelector/rawSelector").to_owned(),
        label_selector: text(r, "/labelSelector/rawSelector").to_owned(),
    }
}

/// The user that a SubjectAccessReview asks about.
fn subject(spec: &Value) -> UserInfo {
    let mut user = UserInfo {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: strings(spec, "groups"),
        ..UserInfo::default()
    };
    for (k, v) in spec.get("extra").and_then(Value::as_object).into_iter().flatten() {
        let values = v.as_array().map(Vec::as_slice).unwrap_or_default();
        user.extra.insert(k.to_lowercase(), values.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    user
}

fn user_json(user: &UserInfo) -> Value {
    let mut v = json!({"username": user.name});
    if !user.uid.is_empty() {
        v["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        v["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        v["extra"] = json!(user.extra);
    }
    v
}
