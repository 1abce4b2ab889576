//! Security contexts of pods and containers, and what a pod's operating system
//! excludes.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use super::volumes::descending;
use super::{Ctx, each_container};
use crate::field::{self, Path};
use crate::value::{flag, get, is_set, list, opt, opt_int, str_of};

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const APP_ARMOR_PATH_MAX: usize = 4095;

fn id(errs: &mut ErrorList, p: &Path, value: Option<i64>) {
    if let Some(value) = value
        && !(0..=i64::from(i32::MAX)).contains(&value)
    {
        field::invalid(errs, p, value, names::inclusive_range(0, i64::from(i32::MAX)));
    }
}

/// A pod's security context. Several of its parts stand in the pod spec itself.
pub fn pod(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let Some(sc) = opt(spec, "securityContext") else { return };
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errs, &p.child(key), opt_int(sc, key));
    }
    for (i, group) in list(sc, "supplementalGroups").iter().enumerate() {
        id(errs, &p.child("supplementalGroups").index(i), group.as_i64());
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        field::invalid(errs, p.child("shareProcessNamespace"), true, detail);
    }
    sysctls(errs, &p.child("sysctls"), spec, sc);
    let choice = |errs: &mut ErrorList, key: &str, supported: &[&str]| {
        if let Some(v) = opt(sc, key).and_then(Value::as_str)
            && !supported.contains(&v)
        {
            field::not_supported(errs, p.child(key), v, supported);
        }
    };
    choice(errs, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(errs, &p.child("seccompProfile"), opt(sc, "seccompProfile"));
    app_armor(errs, &p.child("appArmorProfile"), opt(sc, "appArmorProfile"));
    choice(errs, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    choice(errs, "seLinuxChangePolicy", &["MountOption", "Recursive"]);
}

fn sysctls(errs: &mut ErrorList, p: &Path, spec: &Value, sc: &Value) {
    let mut seen = BTreeSet::new();
    for (i, s) in list(sc, "sysctls").iter().enumerate() {
        let (p, name) = (p.index(i).child("name"), str_of(s, "name"));
        if name.is_empty() {
            field::required(errs, &p, "");
        } else if !sysctl_name(name) {
            field::invalid(errs, &p, name, SYSCTL);
        } else if seen.contains(name) {
            field::duplicate(errs, &p, name);
        }
        let dotted = name.replace('/', ".");
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            field::invalid(errs, &p, name, "may not be specified when 'hostNetwork' is true");
        } else if flag(spec, "hostIPC") && ipc_sysctl(&dotted) {
            field::invalid(errs, &p, name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name);
    }
}

fn ipc_sysctl(name: &str) -> bool {
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

fn sysctl_name(name: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|segment| {
            let b = segment.as_bytes();
            b.first().is_some_and(alnum)
                && b.last().is_some_and(alnum)
                && b.iter().all(|c| alnum(c) || *c == b'-' || *c == b'_')
        })
}

/// A container's security context.
pub fn container(errs: &mut ErrorList, p: &Path, sc: &Value, ctx: &Ctx<'_>) {
    for key in ["runAsUser", "runAsGroup"] {
        id(errs, &p.child(key), opt_int(sc, key));
    }
    if let Some(mount) = opt(sc, "procMount").and_then(Value::as_str) {
        if !["Default", "Unmasked"].contains(&mount) {
            field::not_supported(errs, p.child("procMount"), mount, &["Default", "Unmasked"]);
        }
        if ctx.host_users && mount == "Unmasked" {
            field::invalid(errs, p.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errs, &p.child("seccompProfile"), opt(sc, "seccompProfile"));
    if get(sc, "allowPrivilegeEscalation") == &Value::Bool(false) {
        if flag(sc, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            field::invalid(errs, p, sc.clone(), detail);
        }
        for capability in list(get(sc, "capabilities"), "add") {
            if capability == "CAP_SYS_ADMIN" {
                let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
                field::invalid(errs, p, sc.clone(), detail);
            }
        }
    }
    app_armor(errs, &p.child("appArmorProfile"), opt(sc, "appArmorProfile"));
}

fn seccomp(errs: &mut ErrorList, p: &Path, profile: Option<&Value>) {
    let Some(profile) = profile else { return };
    let kind = str_of(profile, "type");
    if kind.is_empty() {
        field::required(errs, p.child("type"), "type is required when seccompProfile is set");
    } else if !PROFILE_TYPES.contains(&kind) {
        field::not_supported(errs, p.child("type"), kind, &PROFILE_TYPES);
    }
    let local = p.child("localhostProfile");
    match (kind == "Localhost", opt(profile, "localhostProfile").and_then(Value::as_str)) {
        (true, None) => field::required(errs, local, "must be set when seccomp type is Localhost"),
        (true, Some(path)) => descending(errs, &local, path),
        (false, Some(_)) => {
            field::invalid(errs, local, profile.clone(), "can only be set when seccomp type is Localhost");
        }
        (false, None) => {}
    }
}

fn app_armor(errs: &mut ErrorList, p: &Path, profile: Option<&Value>) {
    let Some(profile) = profile else { return };
    let local = p.child("localhostProfile");
    let path = opt(profile, "localhostProfile").and_then(Value::as_str);
    match (str_of(profile, "type"), path) {
        ("Localhost", None | Some("")) => {
            field::required(errs, local, "must be set when AppArmor type is Localhost");
        }
        ("Localhost", Some(path)) => {
            if path.trim() != path {
                field::invalid(errs, &local, path, "must not be padded with whitespace");
            }
            if path.len() > APP_ARMOR_PATH_MAX {
                field::too_long(errs, &local, APP_ARMOR_PATH_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(path)) => {
            field::invalid(errs, local, path, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => field::required(errs, p.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => field::not_supported(errs, p.child("type"), other, &PROFILE_TYPES),
    }
}

pub fn linux_only(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let detail = "windows options cannot be set for a linux pod";
    if is_set(get(spec, "securityContext"), "windowsOptions") {
        field::forbidden(errs, p.child("securityContext").child("windowsOptions"), detail);
    }
    for (p, c) in each_container(spec, p) {
        if is_set(get(c, "securityContext"), "windowsOptions") {
            field::forbidden(errs, p.child("securityContext").child("windowsOptions"), detail);
        }
    }
}

pub fn windows_only(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let detail = "cannot be set for a windows pod";
    let sc = get(spec, "securityContext");
    let deny = |errs: &mut ErrorList, p: Path, set: bool| {
        if set {
            field::forbidden(errs, p, detail);
        }
    };
    let path = p.child("securityContext");
    for key in ["appArmorProfile", "seLinuxOptions"] {
        deny(errs, path.child(key), is_set(sc, key));
    }
    deny(errs, p.child("hostUsers"), is_set(spec, "hostUsers"));
    for key in ["hostPID", "hostIPC"] {
        deny(errs, p.child(key), flag(spec, key));
    }
    for key in ["seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls"] {
        deny(errs, path.child(key), is_set(sc, key));
    }
    deny(errs, p.child("shareProcessNamespace"), is_set(spec, "shareProcessNamespace"));
    for key in ["runAsUser", "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy"] {
        deny(errs, path.child(key), is_set(sc, key));
    }
    for (p, c) in each_container(spec, p) {
        let sc = get(c, "securityContext");
        for key in [
            "appArmorProfile",
            "seLinuxOptions",
            "seccompProfile",
            "capabilities",
            "readOnlyRootFilesystem",
            "privileged",
            "allowPrivilegeEscalation",
            "procMount",
            "runAsUser",
            "runAsGroup",
        ] {
            deny(errs, p.child("securityContext").child(key), is_set(sc, key));
        }
    }
}
