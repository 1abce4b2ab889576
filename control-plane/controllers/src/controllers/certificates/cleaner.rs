//! Deletes requests that nobody needs any more.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{certificate, condition};
use crate::world::Change;
use crate::*;

const APPROVED: i64 = 3600;
const DENIED: i64 = 3600;
const PENDING: i64 = 24 * 3600;

pub struct Cleaner;

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        if let Some(Any::CertificateSigningRequest(_)) = &change.new {
            out.push(Key::new(change.resource, change.name.clone()));
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(csr) = cx.world.csrs.get(&key.name) else { return Plan::nothing() };
        let due = due(csr);
        if due > cx.now.secs() {
            let mut plan = Plan::nothing();
            plan.after(key, Duration::from_secs(u64::try_from(due - cx.now.secs()).unwrap_or(0)));
            return plan;
        }
        let options = DeleteOptions { uid: csr.metadata.uid.clone(), ..DeleteOptions::default() };
        Plan::one(Op::Delete { resource: resources::CERTIFICATE_SIGNING_REQUESTS, name: key.name.clone(), options })
    }
}

/// When the request goes, in seconds since the epoch.
fn due(csr: &CertificateSigningRequest) -> i64 {
    let when = |kind: &str| condition(csr, kind).and_then(|c| c.last_update_time.as_ref()).map(secs);
    let by_time = match (when("Denied"), when("Failed"), when("Approved")) {
        (Some(t), _, _) | (_, Some(t), _) => t + DENIED,
        (_, _, Some(t)) => t + APPROVED,
        _ => created(&csr.metadata) + PENDING,
    };
    certificate(csr).and_then(not_after).map_or(by_time, |t| t.min(by_time))
}

fn not_after(pem: &[u8]) -> Option<i64> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    block.parse_x509().ok().map(|c| c.validity().not_after.timestamp())
}
