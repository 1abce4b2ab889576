//! get and list.

use triarch_api::status::{ErrorList, FieldError, Status};
use triarch_mvcc::{ListRequest, Prefix, ReadError, Revision, Stored};

use crate::token::Continue;
use crate::{
    Body, Filter, ListOptions, ListPage, Registry, RequestContext, Response, RevisionMatch, Served, SubresourceHandler,
    Target, err, options, scale,
};

/// Objects looked at in one step of a selected list.
const SCAN: usize = 2_000;

impl Registry {
    /// Get, also of the subresources that show the object (status) or a part of it (scale).
    pub async fn get(
        &self,
        _ctx: &RequestContext,
        target: &Target<'_>,
        resource_version: &str,
    ) -> Result<Response, Status> {
        self.settle(options::parse_revision(resource_version)?).await?;
        let stored = self.stored(target)?.ok_or_else(|| err::not_found(target.kind, target.name))?;
        let served = Served::stored(target.kind, &stored);
        match self.handler(target)? {
            None | Some(SubresourceHandler::Status | SubresourceHandler::View { .. }) => {
                Ok(Response::ok(Body::Object(served)))
            }
            Some(SubresourceHandler::Scale { spec_replicas, status_replicas, selector }) => {
                let value = scale::from_parent(&served.value(), spec_replicas, status_replicas, selector);
                Ok(Response::ok(Body::Value { schema: scale::SCHEMA, value }))
            }
            Some(_) => Err(Status::method_not_supported(err::resource(target.kind), "get")),
        }
    }

    /// The handler of the target's subresource; 404 when the kind has none of that name.
    pub fn handler(&self, target: &Target<'_>) -> Result<Option<SubresourceHandler>, Status> {
        let Some(name) = target.subresource else { return Ok(None) };
        let found = target.kind.subresources.iter().find(|s| s.name == name);
        found.map(|s| Some(s.handler)).ok_or_else(Status::no_such_resource)
    }

    /// One page at one revision.
    pub async fn list(
        &self,
        _ctx: &RequestContext,
        target: &Target<'_>,
        options: &ListOptions,
    ) -> Result<ListPage, Status> {
        check_list_options(options)?;
        let kind = target.kind;
        let filter = Filter::parse(kind, &options.label_selector, &options.field_selector)?;
        let asked = options::parse_revision(&options.resource_version)?;
        let prefix = narrow(self.prefix(target), &filter, kind.namespaced());
        let (mut at, mut after) = (None, None);
        if options.continue_token.is_empty() {
            self.settle(asked).await?;
            let legacy_exact = options.resource_version_match == RevisionMatch::Unset && options.limit > 0;
            at = asked.filter(|n| *n > 0 && (options.resource_version_match == RevisionMatch::Exact || legacy_exact));
        } else {
            if asked.is_some_and(|n| n > 0) {
                return Err(err::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = Continue::decode(kind, &options.continue_token)
                .map_err(|e| err::bad_request(format!("invalid continue token: {e}")))?;
            match token.revision {
                Some(n) => self.reach(n).await?,
                None => drop(self.barrier().await?),
            }
            at = token.revision.or(at);
            after = Some(token.after);
        }
        let mut page =
            ListPage { kind, revision: 0, items: Vec::new(), continue_token: String::new(), remaining: None };
        loop {
            let limit = match (options.limit, filter.is_empty()) {
                (0, true) => 0,
                (n, true) => n,
                (_, false) => SCAN,
            };
            let request = ListRequest { prefix: prefix.clone(), after: after.clone(), limit, at };
            let mut result = self.mvcc().list(&request).map_err(|e| list_error(&e, after.as_ref()))?;
            page.revision = result.revision;
            // The pages that follow are of the same revision, whatever is written meanwhile.
            at = Some(result.revision);
            if filter.is_empty() {
                page.remaining = result.more.then_some(result.remaining);
                if let Some(last) = result.items.last().filter(|_| result.more) {
                    page.continue_token = Continue::encode(at, &last.key);
                }
                page.items = result.items;
                return Ok(page);
            }
            let last = result.items.last().map(|s| s.key.clone());
            for item in result.items.drain(..) {
                if !filter.matches(&item.key, &item.object) {
                    continue;
                }
                if options.limit > 0 && page.items.len() == options.limit {
                    // There is at least one more that matches: the page ends at its last item.
                    let end = page.items.last().map(|s: &Stored| s.key.clone()).unwrap_or(item.key);
                    page.continue_token = Continue::encode(at, &end);
                    return Ok(page);
                }
                page.items.push(item);
            }
            match last {
                Some(key) if result.more => after = Some(key),
                _ => return Ok(page),
            }
        }
    }
}

/// A selector on the name or namespace narrows what is looked at.
pub(crate) fn narrow(mut prefix: Prefix, filter: &Filter, namespaced: bool) -> Prefix {
    if namespaced && prefix.namespace.is_none() {
        prefix.namespace = filter.only_namespace().map(str::to_owned);
    }
    if !namespaced || prefix.namespace.is_some() {
        prefix.name = filter.only_name().map(str::to_owned);
    }
    prefix
}

/// Upstream's rules about which options go together.
fn check_list_options(o: &ListOptions) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    if o.resource_version_match != RevisionMatch::Unset {
        let field = "resourceVersionMatch";
        if o.resource_version.is_empty() {
            errors.push(FieldError::forbidden(
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !o.continue_token.is_empty() {
            errors.push(FieldError::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if o.resource_version_match == RevisionMatch::Exact && o.resource_version == "0" {
            errors.push(FieldError::forbidden(
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if o.send_initial_events.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(("meta.k8s.io", "ListOptions"), "", &errors)) }
}

/// 410 with a token that goes on at the latest revision, or 504 for the future.
fn list_error(e: &ReadError, after: Option<&triarch_mvcc::Key>) -> Status {
    match (e, after) {
        (ReadError::Future { head }, _) => Status::too_large_rv(Revision::MAX, *head, 1),
        (ReadError::Compacted { .. }, None) => Status::expired("The resourceVersion for the provided list is too old."),
        (ReadError::Compacted { .. }, Some(key)) => {
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
            );
            status.continue_token = Continue::encode(None, key);
            status
        }
    }
}
