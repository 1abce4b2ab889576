//! Probes and lifecycle hooks: exactly one handler each.

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use super::Ctx;
use crate::field::{self, Path};
use crate::value::{int_of, list, opt, opt_int, str_of};

/// Liveness, readiness and startup probes of a container.
pub fn all(errs: &mut ErrorList, p: &Path, container: &Value, ctx: &Ctx<'_>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = opt(container, name) else { continue };
        let p = p.child(name);
        one(errs, &p, probe, ctx);
        if name == "readinessProbe" {
            if let Some(seconds) = opt_int(probe, "terminationGracePeriodSeconds") {
                let detail = "must not be set for readinessProbes";
                field::invalid(errs, p.child("terminationGracePeriodSeconds"), seconds, detail);
            }
        } else if int_of(probe, "successThreshold") != 1 {
            field::invalid(errs, p.child("successThreshold"), int_of(probe, "successThreshold"), "must be 1");
        }
    }
}

fn one(errs: &mut ErrorList, p: &Path, probe: &Value, ctx: &Ctx<'_>) {
    handler(errs, p, probe, &["exec", "httpGet", "tcpSocket", "grpc"], ctx);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        field::non_negative(errs, p.child(key), int_of(probe, key));
    }
    if let Some(seconds) = opt_int(probe, "terminationGracePeriodSeconds")
        && seconds <= 0
    {
        field::invalid(errs, p.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

/// `postStart`, `preStop` and the stop signal.
pub fn lifecycle(errs: &mut ErrorList, p: &Path, lifecycle: &Value, ctx: &Ctx<'_>) {
    for hook in ["postStart", "preStop"] {
        if let Some(h) = opt(lifecycle, hook) {
            handler(errs, &p.child(hook), h, &["exec", "httpGet", "tcpSocket", "sleep"], ctx);
        }
    }
}

fn handler(errs: &mut ErrorList, p: &Path, h: &Value, kinds: &[&str], ctx: &Ctx<'_>) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = opt(h, kind) else { continue };
        let p = p.child(kind);
        if found {
            field::forbidden(errs, p, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" if list(action, "command").is_empty() => field::required(errs, p.child("command"), ""),
            "httpGet" => http_get(errs, &p, action),
            "tcpSocket" => port(errs, &p.child("port"), action.get("port")),
            "grpc" => {
                let number = int_of(action, "port");
                field::invalid_number(errs, &p.child("port"), number, names::port_number(number));
            }
            "sleep" => {
                let seconds = int_of(action, "seconds");
                if let Some(grace) = ctx.grace
                    && (seconds < 0 || seconds > grace)
                {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    field::invalid(errs, &p, seconds, detail);
                }
            }
            _ => {}
        }
    }
    if !found {
        field::required(errs, p, "must specify a handler type");
    }
}

fn http_get(errs: &mut ErrorList, p: &Path, http: &Value) {
    if str_of(http, "path").is_empty() {
        field::required(errs, p.child("path"), "");
    }
    port(errs, &p.child("port"), http.get("port"));
    let scheme = str_of(http, "scheme");
    if scheme != "HTTP" && scheme != "HTTPS" {
        field::not_supported(errs, p.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(http, "httpHeaders") {
        let name = str_of(header, "name");
        field::invalid_each(errs, &p.child("httpHeaders"), name, names::http_header_name(name));
    }
}

/// A port's number or name.
pub fn port(errs: &mut ErrorList, p: &Path, value: Option<&Value>) {
    match value {
        Some(Value::String(name)) => field::invalid_each(errs, p, name, names::port_name(name)),
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or(0);
            field::invalid_number(errs, p, number, names::port_number(number));
        }
    }
}
