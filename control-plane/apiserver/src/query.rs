//! Query strings to options, with upstream's errors.

use std::num::IntErrorKind;

use triarch_api::status::{ErrorList, FieldError, Status};
use triarch_registry::{DeleteOptions, FieldValidation, ListOptions, RevisionMatch, WriteOptions};

/// Pairs of one query that are looked at.
const MAX_PAIRS: usize = 256;
/// Upstream's bound on `fieldManager`.
const MAX_MANAGER: usize = 128;

/// A parsed query string.
#[derive(Clone, Debug, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        Query(
            form_urlencoded::parse(text.as_bytes())
                .take(MAX_PAIRS)
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        )
    }

    /// The first value; empty when there is none.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.has(key).then(|| !matches!(self.get(key), "0" | "false" | "False" | "FALSE"))
    }

    fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|e: std::num::ParseIntError| {
                let why = match e.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
            }),
        }
    }

    pub fn list_options(&self) -> Result<ListOptions, Status> {
        let resource_version_match = match self.get("resourceVersionMatch") {
            "" => RevisionMatch::Unset,
            "Exact" => RevisionMatch::Exact,
            "NotOlderThan" => RevisionMatch::NotOlderThan,
            other => {
                let mut errors = ErrorList::new();
                errors.push(FieldError::not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan", ""]));
                return Err(Status::invalid(("meta.k8s.io", "ListOptions"), "", &errors));
            }
        };
        Ok(ListOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            resource_version: self.get("resourceVersion").to_owned(),
            resource_version_match,
            limit: self.number("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            continue_token: self.get("continue").to_owned(),
            allow_watch_bookmarks: self.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: self.flag("sendInitialEvents"),
            timeout_seconds: self.number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        })
    }

    /// `what` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub fn write_options(&self, what: &str, user_agent: &str) -> Result<WriteOptions, Status> {
        let mut errors = ErrorList::new();
        let dry_run = self.dry_run(&mut errors);
        let field_validation = match self.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        let manager = self.get("fieldManager");
        if manager.len() > MAX_MANAGER {
            errors.push(FieldError::too_long("fieldManager", MAX_MANAGER));
        }
        if let Some((i, c)) = manager.chars().enumerate().find(|(_, c)| c.is_control()) {
            let detail = format!("invalid character U+{:04X} (at position {i})", u32::from(c));
            errors.push(FieldError::invalid("fieldManager", manager, detail));
        }
        if !errors.is_empty() {
            return Err(Status::invalid(("meta.k8s.io", what), "", &errors));
        }
        let field_manager = match manager {
            "" => user_agent.split('/').next().unwrap_or_default().chars().take(MAX_MANAGER).collect(),
            named => named.to_owned(),
        };
        Ok(WriteOptions { dry_run, field_manager, field_validation })
    }

    /// Options of a delete that has no body.
    pub fn delete_options(&self) -> Result<DeleteOptions, Status> {
        let mut errors = ErrorList::new();
        let dry_run = self.dry_run(&mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(("meta.k8s.io", "DeleteOptions"), "", &errors));
        }
        let text = |key: &str| Some(self.get(key)).filter(|v| !v.is_empty()).map(str::to_owned);
        Ok(DeleteOptions {
            grace_period_seconds: self.number("gracePeriodSeconds")?,
            orphan_dependents: self.flag("orphanDependents"),
            propagation_policy: text("propagationPolicy"),
            dry_run,
            ..DeleteOptions::default()
        })
    }

    fn dry_run(&self, errors: &mut ErrorList) -> bool {
        let values: Vec<&str> = self.0.iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.as_str()).collect();
        if values.iter().any(|v| *v != "All") {
            errors.push(FieldError::not_supported("dryRun", values.clone(), &["All"]));
        }
        !values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_query_and_bad_ones_are_named() {
        let q = Query::parse(
            "labelSelector=a%3Db&limit=5&allowWatchBookmarks=true&timeoutSeconds=9&resourceVersionMatch=NotOlderThan",
        );
        let o = q.list_options().unwrap();
        assert_eq!(
            (o.label_selector.as_str(), o.limit, o.allow_watch_bookmarks, o.timeout_seconds),
            ("a=b", 5, true, Some(9))
        );
        assert_eq!(Query::parse("limit=x").list_options().unwrap_err().code, 400);
        assert_eq!(Query::parse("resourceVersionMatch=Sometimes").list_options().unwrap_err().code, 422);
        let w = Query::parse("dryRun=All&fieldValidation=Strict")
            .write_options("CreateOptions", "kubectl/v1.32 (x)")
            .unwrap();
        assert!(w.dry_run && w.field_validation == FieldValidation::Strict && w.field_manager == "kubectl");
        assert_eq!(Query::parse("dryRun=Some").write_options("CreateOptions", "").unwrap_err().code, 422);
    }
}
