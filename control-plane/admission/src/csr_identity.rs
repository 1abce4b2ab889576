//! CertificateSigningRequestIdentity: a request says truthfully who makes it.
//!
//! Upstream does this in the kind's own strategy; here the whole identity is
//! known only to admission.

use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_kinds::value::{child, remove, set};
use triarch_registry::{Attributes, Operation};

use crate::{Plugin, is};

pub struct CertificateSigningRequestIdentity;

impl Plugin for CertificateSigningRequestIdentity {
    fn name(&self) -> &'static str {
        "CertificateSigningRequestIdentity"
    }

    fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        if !is(attrs, "certificates.k8s.io", "certificatesigningrequests") || attrs.operation != Operation::Create {
            return Ok(());
        }
        let user = &attrs.ctx.user;
        let fields: [(&str, Value); 4] = [
            ("username", json!(user.name)),
            ("uid", json!(user.uid)),
            ("groups", json!(user.groups)),
            ("extra", json!(user.extra)),
        ];
        let Some(request) = attrs.object_mut() else { return Ok(()) };
        let spec = child(request, "spec");
        for (key, value) in fields {
            let empty = matches!(&value, Value::String(s) if s.is_empty())
                || matches!(&value, Value::Array(a) if a.is_empty())
                || matches!(&value, Value::Object(o) if o.is_empty());
            if empty {
                remove(spec, key);
            } else {
                set(spec, key, value);
            }
        }
        Ok(())
    }
}
