//! Signs approved requests with the cluster's authority.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::request::{Request, parse, usages_are};
use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, condition};
use crate::world::Change;
use crate::*;

/// What is to be signed.
#[derive(Debug)]
pub struct SignRequest<'a> {
    /// PEM, as in the CSR; already parsed and found well-formed.
    pub pem: &'a [u8],
    pub signer_name: &'a str,
    pub usages: &'a [String],
    pub expiration_seconds: Option<i32>,
    pub now: triarch_env::Wall,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Cannot be done now; tried again.
    #[error("{0}")]
    Unavailable(String),
    /// Will never be done.
    #[error("{0}")]
    Refused(String),
}

/// The cluster's authority. Answers a PEM chain.
pub trait Signer: Send + Sync + 'static {
    fn sign(&self, request: &SignRequest<'_>) -> Result<Vec<u8>, SignError>;
}

pub struct Signing {
    signer: Arc<dyn Signer>,
}

impl Signing {
    pub fn new(signer: Arc<dyn Signer>) -> Signing {
        Signing { signer }
    }
}

impl Controller for Signing {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        if let Some(Any::CertificateSigningRequest(c)) = &change.new
            && wants(c)
        {
            out.push(Key::new(change.resource, change.name.clone()));
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(csr) = cx.world.csrs.get(&key.name).filter(|c| wants(c)) else { return Plan::nothing() };
        let usages = csr.spec.usages.as_deref().unwrap_or_default();
        let signed =
            parse(&csr.spec.request.0).and_then(|r| fits(csr, &r, usages)).map_err(SignError::Refused).and_then(|()| {
                self.signer.sign(&SignRequest {
                    pem: &csr.spec.request.0,
                    signer_name: &csr.spec.signer_name,
                    usages,
                    expiration_seconds: csr.spec.expiration_seconds,
                    now: cx.now,
                })
            });
        let mut object = CertificateSigningRequest::clone(csr);
        let status = object.status.get_or_insert_default();
        match signed {
            Ok(pem) => status.certificate = Some(ByteString(pem)),
            Err(SignError::Refused(message)) => {
                status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                    type_: "Failed".into(),
                    status: "True".into(),
                    reason: Some("SignerValidationFailure".into()),
                    message: Some(message),
                    last_update_time: Some(time(cx.now)),
                    last_transition_time: Some(time(cx.now)),
                });
            }
            Err(SignError::Unavailable(error)) => {
                tracing::warn!(csr = &*key.name.name, %error, "a certificate cannot be signed now");
                let mut plan = Plan::nothing();
                plan.after(key, std::time::Duration::from_secs(1));
                return plan;
            }
        }
        let resource = resources::CERTIFICATE_SIGNING_REQUESTS;
        Plan::one(Op::UpdateSub { resource, subresource: "status", object: to_value(&object) })
    }
}

fn wants(c: &CertificateSigningRequest) -> bool {
    [CLIENT, KUBELET_CLIENT, KUBELET_SERVING].contains(&c.spec.signer_name.as_str())
        && super::certificate(c).is_none()
        && condition(c, "Approved").is_some()
        && condition(c, "Denied").is_none()
        && condition(c, "Failed").is_none()
}

/// Whether the request is one that its signer signs.
fn fits(csr: &CertificateSigningRequest, request: &Request, usages: &[String]) -> Result<(), String> {
    let kubelet = || request.node().map(|_| ()).ok_or("subject organization is not system:nodes".to_owned());
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT => {
            kubelet()?;
            if request.has_alt_names() {
                return Err("DNS, IP, email and URI SANs are not allowed".into());
            }
            usages_are(usages, &["digital signature", "client auth"]).then_some(()).ok_or("usages did not match".into())
        }
        KUBELET_SERVING => {
            kubelet()?;
            if request.dns.is_empty() && request.ips.is_empty() {
                return Err("DNS or IP subjectAltName is required".into());
            }
            if request.others > 0 {
                return Err("email and URI SANs are not allowed".into());
            }
            usages_are(usages, &["digital signature", "server auth"]).then_some(()).ok_or("usages did not match".into())
        }
        _ => {
            let allowed = ["client auth", "digital signature", "key encipherment"];
            let fine =
                usages.iter().any(|u| u == "client auth") && usages.iter().all(|u| allowed.contains(&u.as_str()));
            fine.then_some(()).ok_or("usages did not match".into())
        }
    }
}
