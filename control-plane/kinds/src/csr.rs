//! CertificateSigningRequest, its `approval` and `status`.
//!
//! Who asks (`spec.username`, groups, …) is stamped by admission, which knows
//! the whole identity.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::{Kind, Scope, SelectableField, Subresource, SubresourceHandler, Verb};
use x509_parser::prelude::FromDer as _;

use crate::describe;
use crate::duration;
use crate::field::{self, Path};
use crate::print::{AGE, NAME, text};
use crate::value::{child, copy, get, list, list_at, object, opt, opt_int, remove, set, str_at, str_of};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const DOMAIN_MAX: usize = 253;
const PATH_MAX: usize = 253 + 63 + 1;

pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    list_kind: "CertificateSigningRequestList",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    scope: Scope::Cluster,
    schema: "certificates/v1.CertificateSigningRequest",
    resource: "certificatesigningrequests.certificates.k8s.io",
    subresources: &[
        Subresource {
            name: "approval",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::View { merge: approval },
            response: ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
            schema: "certificates/v1.CertificateSigningRequest",
        },
        Subresource {
            name: "status",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::View { merge: status },
            response: ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
            schema: "certificates/v1.CertificateSigningRequest",
        },
    ],
    columns: &[
        NAME,
        AGE,
        text("SignerName", describe::CSR_SIGNER_NAME, |v, _| or_none(str_at(v, &["spec", "signerName"]))),
        text("Requestor", describe::CSR_REQUEST, |v, _| str_at(v, &["spec", "username"]).into()),
        text("RequestedDuration", describe::CSR_EXPIRATION, |v, _| {
            match opt_int(get(v, "spec"), "expirationSeconds") {
                Some(seconds) => duration::human(seconds).into(),
                None => "<none>".into(),
            }
        }),
        text("Condition", describe::CSR_CONDITIONS, |v, _| condition(v).into()),
    ],
    selectable: &[SelectableField { path: "spec.signerName", get: |v| str_at(v, &["spec", "signerName"]).to_owned() }],
    validate_name: |_, _| Vec::new(),
    prepare_create: |_, v| set(v, "status", json!({})),
    prepare_update: |_, new, old| {
        copy(old, new, "spec");
        copy(old, new, "status");
    },
    validate: |_, v, errs| validate(v, errs),
    validate_update: |ctx, new, old, errs| match ctx.subresource {
        Some("approval") => keeps_decisions(new, old, errs),
        Some("status") => {
            keeps_decisions(new, old, errs);
            let (was, now) = (get(get(old, "status"), "certificate"), get(get(new, "status"), "certificate"));
            if !was.is_null() && was != now {
                field::forbidden(
                    errs,
                    "status.certificate",
                    "updates may not set certificate content after it has been set",
                );
            }
            certificate(errs, now);
        }
        _ => {}
    },
    ..Kind::BASE
};

fn or_none(text: &str) -> Value {
    crate::print::or_none(text)
}

/// `approval` changes the conditions (and metadata), never what was issued.
fn approval(new: &Value, old: &Value) -> Value {
    let mut out = new.clone();
    copy(old, &mut out, "spec");
    let issued = get(get(old, "status"), "certificate").clone();
    let status = child(&mut out, "status");
    remove(status, "certificate");
    if !issued.is_null() {
        set(status, "certificate", issued);
    }
    stamp(&mut out, old);
    out
}

/// `status` issues and fails; it neither approves nor denies.
fn status(new: &Value, old: &Value) -> Value {
    let mut out = new.clone();
    copy(old, &mut out, "spec");
    let decided = |c: &&Value| ["Approved", "Denied"].contains(&str_of(c, "type"));
    let mut conditions: Vec<Value> = list_at(old, &["status", "conditions"]).iter().filter(decided).cloned().collect();
    conditions.extend(list_at(new, &["status", "conditions"]).iter().filter(|c| !decided(c)).cloned());
    let status = child(&mut out, "status");
    match conditions.is_empty() {
        true => remove(status, "conditions"),
        false => set(status, "conditions", conditions),
    }
    stamp(&mut out, old);
    out
}

/// A condition's transition time is kept while its status is the same, and is
/// the time of the update otherwise.
fn stamp(v: &mut Value, old: &Value) {
    let before = list_at(old, &["status", "conditions"]).to_vec();
    for c in crate::value::each_mut(child(v, "status"), "conditions") {
        if get(c, "lastTransitionTime").is_null() {
            let twin = before
                .iter()
                .find(|b| str_of(b, "type") == str_of(c, "type") && str_of(b, "status") == str_of(c, "status"));
            let time = twin.map_or_else(|| get(c, "lastUpdateTime").clone(), |t| get(t, "lastTransitionTime").clone());
            object(c).insert("lastTransitionTime".into(), time);
        }
    }
}

fn validate(v: &Value, errs: &mut ErrorList) {
    let (p, spec) = (Path::new("spec"), get(v, "spec"));
    if let Err(why) = request(str_of(spec, "request")) {
        field::invalid(errs, p.child("request"), get(spec, "request").clone(), why);
    }
    let usages = list(spec, "usages");
    if usages.is_empty() {
        field::required(errs, p.child("usages"), "");
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        let (p, usage) = (p.child("usages").index(i), usage.as_str().unwrap_or(""));
        if !USAGES.contains(&usage) {
            field::not_supported(errs, &p, usage, &USAGES);
        }
        if !seen.insert(usage) {
            field::duplicate(errs, &p, usage);
        }
    }
    let signer = str_of(spec, "signerName");
    if signer == "kubernetes.io/legacy-unknown" {
        let detail = "the legacy signerName is not allowed via this API version";
        field::invalid(errs, p.child("signerName"), signer, detail);
    } else {
        signer_name(errs, &p.child("signerName"), signer);
    }
    if let Some(seconds) = opt_int(spec, "expirationSeconds")
        && seconds < 600
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        field::invalid(errs, p.child("expirationSeconds"), seconds, detail);
    }
    conditions(errs, v);
}

/// The request must be one PEM block with a well-formed PKCS#10 request. The
/// signer checks its signature before it issues anything.
fn request(text: &str) -> Result<(), String> {
    organizations(text).map(drop)
}

/// The organizations (groups, to Kubernetes) of a request's subject.
pub fn organizations(text: &str) -> Result<Vec<String>, String> {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let wrong = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let block = pem::parse(&bytes).map_err(|_| wrong())?;
    if block.tag() != "CERTIFICATE REQUEST" || block.headers().iter().count() != 0 {
        return Err(wrong());
    }
    match x509_parser::certification_request::X509CertificationRequest::from_der(block.contents()) {
        Ok(([], request)) => {
            let names = request.certification_request_info.subject.iter_organization();
            Ok(names.filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
        }
        Ok(_) => Err("asn1: syntax error: trailing data".to_owned()),
        Err(_) => Err("asn1: structure error: malformed certificate request".to_owned()),
    }
}

fn certificate(errs: &mut ErrorList, value: &Value) {
    let Some(text) = value.as_str() else { return };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let problem = match pem::parse_many(&bytes) {
        Ok(blocks) if blocks.is_empty() => "must contain at least one CERTIFICATE PEM block",
        Ok(blocks) if blocks.iter().any(|b| b.tag() != "CERTIFICATE") => "only CERTIFICATE PEM blocks are allowed",
        Ok(_) => return,
        Err(_) => "must contain at least one CERTIFICATE PEM block",
    };
    field::invalid(errs, "status.certificate", "<certificate data>", problem);
}

/// `example.com/signer-name`.
pub fn signer_name(errs: &mut ErrorList, p: &Path, name: &str) {
    if name.is_empty() {
        field::required(errs, p, "");
        return;
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, path] = segments[..] else {
        let detail = "must be a fully qualified domain and path of the form \"example.com/signer-name\"";
        field::invalid(errs, p, name, detail);
        return;
    };
    if domain.len() > DOMAIN_MAX {
        field::too_long(errs, p, DOMAIN_MAX);
    }
    for label in domain.split('.') {
        for message in names::dns1123_label(label) {
            field::invalid(errs, p, domain, format!("validating label {label:?}: {message}"));
        }
    }
    if domain.split('.').count() < 2 {
        field::invalid(errs, p, domain, "should be a domain with at least two segments separated by dots");
    }
    for label in path.split('.') {
        for message in names::dns1123_subdomain(label) {
            field::invalid(errs, p, path, format!("validating label {label:?}: {message}"));
        }
    }
    if path.len() > PATH_MAX {
        field::too_long(errs, p, PATH_MAX);
    }
}

fn conditions(errs: &mut ErrorList, v: &Value) {
    let (p, all) = (Path::new("status").child("conditions"), list_at(v, &["status", "conditions"]));
    let mut seen = BTreeSet::new();
    let (mut approved, mut denied) = (false, false);
    for (i, c) in all.iter().enumerate() {
        let (p, kind, status) = (p.index(i), str_of(c, "type"), str_of(c, "status"));
        if kind.is_empty() {
            field::required(errs, p.child("type"), "");
        }
        let decisive = ["Approved", "Denied", "Failed"].contains(&kind);
        match status {
            "" => field::required(errs, p.child("status"), ""),
            "True" => {}
            other if decisive => field::not_supported(errs, p.child("status"), other, &["True"]),
            "False" | "Unknown" => {}
            other => field::not_supported(errs, p.child("status"), other, &["True", "False", "Unknown"]),
        }
        approved |= kind == "Approved";
        denied |= kind == "Denied";
        if approved && denied && ["Approved", "Denied"].contains(&kind) {
            field::invalid(errs, p.child("type"), kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) {
            field::duplicate(errs, p.child("type"), kind);
        }
    }
}

/// Approved, Denied and Failed are for good.
fn keeps_decisions(new: &Value, old: &Value, errs: &mut ErrorList) {
    conditions(errs, new);
    for kind in ["Approved", "Denied", "Failed"] {
        let of = |v: &Value| {
            list_at(v, &["status", "conditions"])
                .iter()
                .filter(|c| str_of(c, "type") == kind)
                .cloned()
                .collect::<Vec<_>>()
        };
        let (was, now) = (of(old), of(new));
        if !was.is_empty() && now.len() < was.len() {
            field::forbidden(errs, "status.conditions", format!("updates may not remove a condition of type {kind:?}"));
        }
    }
}

fn condition(v: &Value) -> String {
    let has = |kind: &str| list_at(v, &["status", "conditions"]).iter().any(|c| str_of(c, "type") == kind);
    let mut text = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if opt(get(v, "status"), "certificate").is_some_and(|c| c != "") {
        text.push_str(",Issued");
    }
    text
}
