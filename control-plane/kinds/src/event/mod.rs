//! Events: two groups over one store. `core/v1` is what is stored; the
//! `events.k8s.io/v1` form is converted from and to it.

pub mod core;
pub mod events_k8s_io;

use serde_json::Value;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::meta;
use crate::value::{get, str_at, str_of};

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// What both groups check. `v` is in the core form; `controller` is how the
/// request's version names the reporting controller.
fn validate(errs: &mut ErrorList, v: &Value, controller: &str) {
    let (namespace, involved) = (str_at(v, &["metadata", "namespace"]), str_at(v, &["involvedObject", "namespace"]));
    let at = Path::new("involvedObject").child("namespace");
    let disagree = "does not match event.namespace";
    if get(v, "eventTime").is_null() {
        let agree = match involved {
            // Events about cluster-scoped objects are kept in `default`.
            "" => namespace.is_empty() || namespace == "default",
            other => namespace == other,
        };
        if !agree {
            field::invalid(errs, at, involved, disagree);
        }
    } else {
        if involved.is_empty() && namespace != "default" && namespace != "kube-system" {
            field::invalid(errs, at, involved, disagree);
        }
        let reporter = str_of(v, "reportingComponent");
        if reporter.is_empty() {
            field::required(errs, controller, "");
        }
        meta::label_key(errs, &Path::new(controller), reporter);
        for key in ["reportingInstance", "action", "reason"] {
            let text = str_of(v, key);
            if text.is_empty() {
                field::required(errs, key, "");
            } else if text.len() > TEXT_MAX {
                field::invalid(errs, key, "", format!("can have at most {TEXT_MAX} characters"));
            }
        }
        if str_of(v, "message").len() > NOTE_MAX {
            field::invalid(errs, "message", "", format!("can have at most {NOTE_MAX} characters"));
        }
    }
    meta::dns1123_subdomain(errs, &Path::new("namespace"), namespace);
}
