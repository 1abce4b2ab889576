//! Content negotiation: what form an answer takes.

use http::HeaderMap;
use triarch_api::status::Status;

/// What kind of document is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    Object,
    /// `as=Table;g=meta.k8s.io;v=v1`
    Table,
    /// `as=PartialObjectMetadata` or `…List`
    Metadata,
}

/// The media types that answers can have, as the 406 lists them.
const OFFERED: &[&str] = &["application/json"];
/// Clauses of one Accept header that are looked at.
const MAX_CLAUSES: usize = 32;

/// One clause of an Accept header.
struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| *v)
    }

    fn quality(&self) -> f32 {
        self.param("q").parse().unwrap_or(1.0)
    }
}

fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let mut out = Vec::new();
    for header in headers.get_all(http::header::ACCEPT) {
        let Ok(text) = header.to_str() else { continue };
        for clause in text.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !media.is_empty() && out.len() < MAX_CLAUSES {
                let params =
                    parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"')));
                out.push(Clause { media, params: params.collect() });
            }
        }
    }
    out.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    out
}

fn is_json(media: &str) -> bool {
    matches!(media, "application/json" | "*/*" | "application/*")
}

/// The form of an object, list or watch. `allowed` says which transforms the
/// endpoint has; one that is asked for and not there is skipped, as upstream does.
pub fn view(headers: &HeaderMap, allowed: &[View]) -> Result<View, Status> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(View::Object);
    }
    for clause in clauses.iter().filter(|c| is_json(c.media)) {
        let meta = clause.param("g") == "meta.k8s.io" && clause.param("v") == "v1";
        let view = match clause.param("as") {
            "" => View::Object,
            "Table" if meta => View::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => View::Metadata,
            _ => continue,
        };
        if view == View::Object || allowed.contains(&view) {
            return Ok(view);
        }
    }
    Err(Status::not_acceptable(OFFERED))
}

/// Whether aggregated discovery (`apidiscovery.k8s.io/v2`) is preferred to the legacy documents.
pub fn aggregated(headers: &HeaderMap) -> Result<bool, Status> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(false);
    }
    for clause in clauses.iter().filter(|c| is_json(c.media)) {
        match (clause.param("as"), clause.param("g"), clause.param("v")) {
            ("", ..) => return Ok(false),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Ok(true),
            _ => {}
        }
    }
    Err(Status::not_acceptable(OFFERED))
}

/// Whether `media` itself (not by wildcard) is asked for.
pub fn names(headers: &HeaderMap, media: &str) -> bool {
    clauses(headers).iter().any(|c| c.media == media)
}

/// Whether JSON should be indented: asked for, or a person is looking.
pub fn pretty(headers: &HeaderMap, query: &[(String, String)]) -> bool {
    if let Some((_, v)) = query.iter().find(|(k, _)| k == "pretty") {
        return !matches!(v.as_str(), "0" | "false" | "False" | "FALSE");
    }
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p))
}

/// The media type of a body, without parameters, in lower case.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> HeaderMap {
        let mut h = HeaderMap::new();
        h.insert(http::header::ACCEPT, text.parse().unwrap());
        h
    }

    #[test]
    fn answers_are_json_unless_only_protobuf_will_do() {
        let all = [View::Table, View::Metadata];
        assert_eq!(view(&HeaderMap::new(), &all).unwrap(), View::Object);
        assert_eq!(view(&accept("application/vnd.kubernetes.protobuf,application/json"), &all).unwrap(), View::Object);
        let refused = view(&accept("application/vnd.kubernetes.protobuf"), &all).unwrap_err();
        assert_eq!(refused.code, 406);
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(view(&accept(kubectl), &all).unwrap(), View::Table);
        assert_eq!(view(&accept(kubectl), &[]).unwrap(), View::Object);
        assert_eq!(view(&accept("application/json;as=Table;v=v1;g=meta.k8s.io"), &[]).unwrap_err().code, 406);
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(view(&accept(partial), &all).unwrap(), View::Metadata);
        assert_eq!(
            view(&accept("application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io"), &all).unwrap(),
            View::Table
        );
    }

    #[test]
    fn only_v2_of_aggregated_discovery_is_known() {
        let both = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(aggregated(&accept(both)).unwrap());
        assert!(
            !aggregated(&accept(
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
            ))
            .unwrap()
        );
        assert!(!aggregated(&accept("*/*")).unwrap());
    }
}
