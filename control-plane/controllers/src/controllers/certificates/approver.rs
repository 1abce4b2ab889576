//! Approves what kubelets ask for: their client certificate, for a joining or
//! the same node, and a serving certificate for addresses that the Node has.

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::request::{Request, parse, usages_are};
use super::{KUBELET_CLIENT, KUBELET_SERVING, condition};
use crate::world::Change;
use crate::*;

pub struct Approver;

impl Controller for Approver {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        match &change.new {
            Some(Any::CertificateSigningRequest(_)) => out.push(Key::new(change.resource, change.name.clone())),
            // A serving request may have waited for the Node's addresses.
            Some(Any::Node(_)) => {
                let user = format!("system:node:{}", change.name.name);
                let waiting = world.csrs.iter().filter(|(_, c)| {
                    c.spec.signer_name == KUBELET_SERVING && c.spec.username.as_ref() == Some(&user) && open(c)
                });
                out.extend(waiting.map(|(n, _)| Key::new(resources::CERTIFICATE_SIGNING_REQUESTS, n.clone())));
            }
            _ => {}
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(csr) = cx.world.csrs.get(&key.name).filter(|c| open(c)) else { return Plan::nothing() };
        let Ok(request) = parse(&csr.spec.request.0) else { return Plan::nothing() };
        let Some(message) = verdict(cx, csr, &request) else { return Plan::nothing() };
        let mut object = CertificateSigningRequest::clone(csr);
        object.status.get_or_insert_default().conditions.get_or_insert_default().push(
            CertificateSigningRequestCondition {
                type_: "Approved".into(),
                status: "True".into(),
                reason: Some("AutoApproved".into()),
                message: Some(message.into()),
                last_update_time: Some(time(cx.now)),
                last_transition_time: Some(time(cx.now)),
            },
        );
        let resource = resources::CERTIFICATE_SIGNING_REQUESTS;
        Plan::one(Op::UpdateSub { resource, subresource: "approval", object: to_value(&object) })
    }
}

fn open(csr: &CertificateSigningRequest) -> bool {
    super::certificate(csr).is_none() && condition(csr, "Approved").is_none() && condition(csr, "Denied").is_none()
}

/// Why the request is approved; `None` leaves it to a person.
fn verdict(cx: &Context<'_>, csr: &CertificateSigningRequest, request: &Request) -> Option<&'static str> {
    let node = request.node()?;
    let user = csr.spec.username.as_deref().unwrap_or_default();
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT => {
            if request.has_alt_names() || !usages_are(usages, &["digital signature", "client auth"]) {
                return None;
            }
            if user == request.common_name {
                return Some("Auto approving self kubelet client certificate after SubjectAccessReview.");
            }
            let joining = csr.spec.groups.iter().flatten().any(|g| g == "system:bootstrappers");
            joining.then_some("Auto approving kubelet client certificate after SubjectAccessReview.")
        }
        KUBELET_SERVING => {
            if user != request.common_name
                || !usages_are(usages, &["digital signature", "server auth"])
                || !request.has_alt_names()
                || request.others > 0
            {
                return None;
            }
            let node = cx.world.nodes.named(node)?;
            let addresses: Vec<&str> =
                node.status.iter().flat_map(|s| s.addresses.iter().flatten()).map(|a| a.address.as_str()).collect();
            let ips_known = request.ips.iter().all(|ip| addresses.iter().any(|a| a.parse() == Ok(*ip)));
            let names_known = request.dns.iter().all(|n| addresses.contains(&n.as_str()));
            (ips_known && names_known)
                .then_some("Auto approving kubelet serving certificate for the node's own addresses.")
        }
        _ => None,
    }
}
