//! Requests made with real keys.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use super::*;
use crate::testing::Fixture;
use crate::*;

fn request(cn: &str, org: &str, names: &[&str]) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
    let mut p = rcgen::CertificateParams::new(names).unwrap();
    p.distinguished_name = rcgen::DistinguishedName::new();
    p.distinguished_name.push(rcgen::DnType::CommonName, cn);
    p.distinguished_name.push(rcgen::DnType::OrganizationName, org);
    p.serialize_request(&key).unwrap().pem().unwrap()
}

fn csr(signer: &str, user: &str, groups: &[&str], pem: &str, usages: &[&str]) -> Value {
    let b64 = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": "c", "uid": "c", "creationTimestamp": "1970-01-12T13:00:00Z"},
        "spec": {"signerName": signer, "username": user, "groups": groups, "request": b64, "usages": usages}})
}

fn key() -> Key {
    Key::new(resources::CERTIFICATE_SIGNING_REQUESTS, Name::cluster("c"))
}

fn with(csr: Value) -> Fixture {
    Fixture::new().put(resources::CERTIFICATE_SIGNING_REQUESTS, csr)
}

const CLIENT_USES: &[&str] = &["digital signature", "client auth"];
const SERVER_USES: &[&str] = &["digital signature", "server auth"];
const NODE: &str = "system:node:n1";

#[test]
fn a_joining_node_gets_its_own_client_certificate_and_nothing_else() {
    let approve = |c: Value| !with(c).reconcile(&Approver, &key()).is_empty();
    let pem = request(NODE, "system:nodes", &[]);
    let joining = ["system:bootstrappers"];
    assert!(approve(csr(KUBELET_CLIENT, "system:bootstrap:x", &joining, &pem, CLIENT_USES)));
    assert!(approve(csr(KUBELET_CLIENT, NODE, &["system:nodes"], &pem, CLIENT_USES)), "its own renewal");
    assert!(!approve(csr(KUBELET_CLIENT, "system:node:n2", &["system:nodes"], &pem, CLIENT_USES)), "another node's");
    assert!(!approve(csr(KUBELET_CLIENT, "system:bootstrap:x", &joining, &pem, SERVER_USES)));
    let admin = request("admin", "system:masters", &[]);
    assert!(!approve(csr(KUBELET_CLIENT, "system:bootstrap:x", &joining, &admin, CLIENT_USES)));
    let names = request(NODE, "system:nodes", &["evil.example"]);
    assert!(!approve(csr(KUBELET_CLIENT, "system:bootstrap:x", &joining, &names, CLIENT_USES)));
    assert!(!approve(csr(CLIENT, "system:bootstrap:x", &joining, &pem, CLIENT_USES)), "a person's to approve");
}

#[test]
fn a_serving_certificate_is_approved_for_addresses_that_the_node_has() {
    let node = json!({"metadata": {"name": "n1", "uid": "n"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}]}});
    let run = |names: &[&str]| {
        let c = csr(KUBELET_SERVING, NODE, &["system:nodes"], &request(NODE, "system:nodes", names), SERVER_USES);
        !with(c).put(resources::NODES, node.clone()).reconcile(&Approver, &key()).is_empty()
    };
    assert!(run(&["10.0.0.1", "n1"]));
    assert!(!run(&["10.0.0.2"]));
    assert!(!run(&["kubernetes.default.svc"]));
    assert!(!run(&[]));
}

struct Fake(Result<Vec<u8>, SignError>);

impl Signer for Fake {
    fn sign(&self, _: &SignRequest<'_>) -> Result<Vec<u8>, SignError> {
        self.0.clone()
    }
}

fn approved(mut c: Value, at: &str) -> Value {
    c["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": at}]});
    c
}

#[test]
fn approved_requests_are_signed_and_unfit_ones_fail_for_good() {
    let signer = || Signing::new(Arc::new(Fake(Ok(b"PEM".to_vec()))));
    let good = csr(KUBELET_CLIENT, NODE, &[], &request(NODE, "system:nodes", &[]), CLIENT_USES);
    assert!(with(good.clone()).reconcile(&signer(), &key()).is_empty(), "not approved yet");
    let at = "1970-01-12T13:40:00Z";
    let status = |c: Value, s: Signing| {
        let plan = with(approved(c, at)).reconcile(&s, &key());
        let Some(Op::UpdateSub { object, subresource: "status", .. }) = plan.writes().next().map(|w| w.op.clone())
        else {
            panic!("{plan:?}")
        };
        object["status"].clone()
    };
    assert_eq!(status(good.clone(), signer())["certificate"], "UEVN");
    let masters = csr(KUBELET_CLIENT, NODE, &[], &request("admin", "system:masters", &[]), CLIENT_USES);
    assert_eq!(status(masters, signer())["conditions"][1]["reason"], "SignerValidationFailure");
    let broken = csr(KUBELET_CLIENT, NODE, &[], "nonsense", CLIENT_USES);
    assert_eq!(status(broken, signer())["conditions"][1]["type"], "Failed");
    let later = Signing::new(Arc::new(Fake(Err(SignError::Unavailable("sealed".into())))));
    let plan = with(approved(good, at)).reconcile(&later, &key());
    assert!(plan.is_empty() && plan.requeue.len() == 1, "tried again");
}

#[test]
fn requests_go_an_hour_after_approval_or_a_day_after_they_were_made() {
    let c = csr(CLIENT, "u", &[], "x", CLIENT_USES);
    let wait = |c: Value| with(c).reconcile(&Cleaner, &key()).requeue.first().map(|r| r.1);
    assert_eq!(wait(approved(c.clone(), "1970-01-12T13:40:00Z")), Some(Duration::from_secs(3200)));
    assert_eq!(wait(c.clone()), Some(Duration::from_secs(86_400 - 2800)));
    assert_eq!(wait(approved(c, "1970-01-12T12:00:00Z")), None, "deleted");
}
