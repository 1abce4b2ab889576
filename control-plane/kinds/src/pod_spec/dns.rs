//! `dnsConfig` and `hostAliases`.

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::meta;
use crate::value::{list, opt, str_of};

/// libc reads no more than these.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

pub fn config(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let config = opt(spec, "dnsConfig");
    let servers = config.map_or(&[][..], |c| list(c, "nameservers"));
    if str_of(spec, "dnsPolicy") == "None" {
        if config.is_none() {
            field::required(errs, p, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            field::required(errs, p.child("nameservers"), detail);
            return;
        }
    }
    let Some(config) = config else { return };
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        field::invalid(errs, p.child("nameservers"), servers.to_vec(), detail);
    }
    for (i, server) in servers.iter().enumerate() {
        ip(errs, &p.child("nameservers").index(i), server.as_str().unwrap_or(""));
    }
    let searches: Vec<&str> = list(config, "searches").iter().filter_map(Value::as_str).collect();
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        field::invalid(errs, p.child("searches"), searches.clone(), detail);
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARS {
        let detail =
            format!("must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list");
        field::invalid(errs, p.child("searches"), searches.clone(), detail);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed here (SRV records), and nothing else beyond a subdomain.
        let messages = names::dns1123_subdomain(&search.replace('_', "a"));
        field::invalid_each(errs, &p.child("searches").index(i), search, messages);
    }
    for (i, option) in list(config, "options").iter().enumerate() {
        if str_of(option, "name").is_empty() {
            field::required(errs, p.child("options").index(i), "must not be empty");
        }
    }
}

fn ip(errs: &mut ErrorList, p: &Path, address: &str) {
    field::invalid_each(errs, p, address, names::ip(address));
}

pub fn host_aliases(errs: &mut ErrorList, p: &Path, spec: &Value) {
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let p = p.index(i);
        ip(errs, &p.child("ip"), str_of(alias, "ip"));
        for (j, name) in list(alias, "hostnames").iter().enumerate() {
            meta::dns1123_subdomain(errs, &p.child("hostnames").index(j), name.as_str().unwrap_or(""));
        }
    }
}
