//! Lease.

use serde_json::Value;
use triarch_api::status::ErrorList;
use triarch_registry::Kind;

use crate::describe;
use crate::field::{self, Path};
use crate::meta;
use crate::print::{AGE, NAME, text};
use crate::value::{get, opt, opt_int, str_at, str_of};

pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    schema: "coordination/v1.Lease",
    resource: "leases.coordination.k8s.io",
    columns: &[NAME, text("Holder", describe::LEASE_HOLDER, |v, _| str_at(v, &["spec", "holderIdentity"]).into()), AGE],
    create_on_update: true,
    unconditional_update: false,
    validate_name: meta::subdomain_name,
    validate: |_, v, errs| validate(errs, get(v, "spec")),
    ..Kind::BASE
};

fn validate(errs: &mut ErrorList, spec: &Value) {
    let p = Path::new("spec");
    if let Some(seconds) = opt_int(spec, "leaseDurationSeconds")
        && seconds <= 0
    {
        field::invalid(errs, p.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(n) = opt_int(spec, "leaseTransitions") {
        field::non_negative(errs, p.child("leaseTransitions"), n);
    }
    if let Some(strategy) = opt(spec, "strategy").and_then(Value::as_str)
        && strategy != "OldestEmulationVersion"
    {
        if strategy.contains('/') {
            meta::label_key(errs, &p.child("strategy"), strategy);
        } else {
            field::not_supported(errs, p.child("strategy"), strategy, &["OldestEmulationVersion"]);
        }
    }
    if !str_of(spec, "preferredHolder").is_empty() && str_of(spec, "strategy").is_empty() {
        field::forbidden(errs, p.child("preferredHolder"), "may only be specified when `strategy` is defined");
    }
}
