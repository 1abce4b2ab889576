//! Requests for resources: HTTP on one side, the registry's verbs on the other.

use std::sync::Arc;

use futures::FutureExt;
use http::Response;
use triarch_api::status::Status;
use triarch_registry::decode::{self, Expected, MediaType};
use triarch_registry::{
    self as registry, DeleteOptions, Kind, ListOptions, PATCH_TYPES, PatchType, SubresourceHandler, Target, Verb,
    set_type,
};

use crate::connect::{ConnectRequest, RequestBody};
use crate::metrics::VerbLabels;
use crate::negotiate::{self, View};
use crate::respond::{self, Body};
use crate::server::{ApiServer, Incoming, header, wants_upgrade};
use crate::transform::{self, IncludeObject};
use crate::watch::{self, Encoder, Open};

const OBJECTS: &[View] = &[View::Table, View::Metadata];

pub(crate) async fn serve(
    server: &Arc<ApiServer>,
    request: Incoming,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let info = &request.info;
    let kinds = server.registry().kinds();
    if kinds.in_group_version(&info.group, &info.version).next().is_none() {
        return Ok(respond::page_not_found());
    }
    let Some(kind) = kinds.get(&info.group, &info.version, &info.resource) else {
        return Err(Status::no_such_resource());
    };
    // A path that puts a cluster-scoped object into a namespace, or the reverse, is nobody's.
    let namespace_kind = kind.group.is_empty() && kind.plural == "namespaces";
    if kind.namespaced()
        && info.namespace.is_empty()
        && !info.name.is_empty()
        && info.verb != "list"
        && info.verb != "watch"
        && info.verb != "deletecollection"
    {
        return Err(Status::no_such_resource());
    }
    if !kind.namespaced() && !info.namespace.is_empty() && !namespace_kind {
        return Err(Status::no_such_resource());
    }
    let sub = match info.subresource.as_str() {
        "" => None,
        name => match kind.subresources.iter().find(|s| s.name == name) {
            Some(sub) => Some(sub),
            None => return Err(Status::no_such_resource()),
        },
    };
    if sub.is_some_and(|s| matches!(s.handler, SubresourceHandler::Connect)) {
        return connect(server, kind, request, body).await;
    }
    if !request.info.rest.is_empty() {
        return Err(Status::no_such_resource());
    }
    let verb = match info.verb.as_str() {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => return Err(Status::method_not_allowed()),
    };
    // Objects are made in collections and changed by name; subresources have the parent's name.
    let placed = match verb {
        Verb::Create => sub.is_some() != info.name.is_empty() && (!kind.namespaced() || !info.namespace.is_empty()),
        Verb::Update | Verb::Patch => !info.name.is_empty(),
        _ => true,
    };
    if !placed || !sub.map_or(kind.verbs, |s| s.verbs).contains(&verb) {
        return Err(Status::method_not_allowed());
    }
    match verb {
        Verb::Get => get(server, kind, &request).boxed().await,
        Verb::List => list(server, kind, &request).boxed().await,
        Verb::Watch => watch(server, kind, &request).boxed().await,
        Verb::Create | Verb::Update => write(server, kind, &request, body, verb).boxed().await,
        Verb::Patch => patch(server, kind, &request, body).boxed().await,
        Verb::Delete | Verb::DeleteCollection => delete(server, kind, &request, body, verb).boxed().await,
    }
}

impl Incoming {
    fn target(&self, kind: &'static Kind) -> Target<'_> {
        Target {
            kind,
            subresource: Some(self.info.subresource.as_str()).filter(|s| !s.is_empty()),
            namespace: if kind.namespaced() { &self.info.namespace } else { "" },
            name: &self.info.name,
        }
    }

    /// The target of list, watch and deletecollection. The name that a field
    /// selector gives stays in the selector.
    fn collection(&self, kind: &'static Kind) -> Target<'_> {
        Target { name: "", ..self.target(kind) }
    }

    fn include(&self) -> Result<IncludeObject, Status> {
        let text = self.query.get("includeObject");
        IncludeObject::parse(text)
            .ok_or_else(|| Status::bad_request(format!("unrecognized includeObject value: {text:?}")))
    }

    fn agent(&self) -> &str {
        header(&self.head.headers, "user-agent")
    }
}

async fn get(server: &Arc<ApiServer>, kind: &'static Kind, request: &Incoming) -> Result<Response<Body>, Status> {
    let view = negotiate::view(&request.head.headers, OBJECTS)?;
    let answer =
        server.registry().get(&request.ctx, &request.target(kind), request.query.get("resourceVersion")).await?;
    render(server, request, answer, view)
}

async fn list(server: &Arc<ApiServer>, kind: &'static Kind, request: &Incoming) -> Result<Response<Body>, Status> {
    let view = negotiate::view(&request.head.headers, OBJECTS)?;
    let page = server.registry().list(&request.ctx, &request.collection(kind), &request.query.list_options()?).await?;
    render(server, request, registry::Response::ok(registry::Body::List(page)), view)
}

async fn watch(server: &Arc<ApiServer>, kind: &'static Kind, request: &Incoming) -> Result<Response<Body>, Status> {
    let view = negotiate::view(&request.head.headers, OBJECTS)?;
    let include = request.include()?;
    let place = server.long_running()?;
    let mut options: ListOptions = request.query.list_options()?;
    let least = server.parts.limits.min_watch.as_secs();
    options.timeout_seconds =
        Some(options.timeout_seconds.unwrap_or_else(|| least + server.env.random_below(least.max(1))));
    let mut target = request.target(kind);
    if request.query.get("fieldSelector").contains("metadata.name") {
        target.name = "";
    }
    let watch = match server.registry().watch(&request.ctx, &target, &options).await {
        Ok(watch) => watch,
        // In the stream, as clients that resume expect it.
        Err(status) if status.code == 410 => {
            let event = futures::stream::iter([Ok(watch::error_event(&status))]);
            return Ok(respond::response(200, respond::JSON, respond::stream(event)));
        }
        Err(status) => return Err(status),
    };
    let labels = VerbLabels { verb: "watch".into(), resource: kind.plural.into() };
    let open = Open::new(server.metrics.watchers.get_or_create_owned(&labels)).in_place(place);
    let encoder = Encoder { kind, view, include, cache: server.cache.clone(), env: server.env.clone(), headers: true };
    let body = respond::stream(watch::stream(watch, encoder, request.indent, server.parts.scope.clone(), open));
    Ok(respond::response(200, respond::JSON, body))
}

async fn write(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    request: &Incoming,
    body: RequestBody,
    verb: Verb,
) -> Result<Response<Body>, Status> {
    let allowed: &[View] = if kind.stored { OBJECTS } else { &[] };
    let view = negotiate::view(&request.head.headers, allowed)?;
    let create = verb == Verb::Create;
    let options =
        request.query.write_options(if create { "CreateOptions" } else { "UpdateOptions" }, request.agent())?;
    let media = media_type(request)?;
    let body = server.read_body(body, &request.head.headers).await?;
    let expected = expected(kind, &request.info.subresource);
    let value = decode::body(&request.ctx, &expected, media, &body, options.field_validation)?;
    let target = request.target(kind);
    let answer = if create {
        server.registry().create(&request.ctx, &target, value, &options).await?
    } else {
        server.registry().update(&request.ctx, &target, value, &options).await?
    };
    render(server, request, answer, view)
}

async fn patch(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    request: &Incoming,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let view = negotiate::view(&request.head.headers, OBJECTS)?;
    let sent = negotiate::content_type(&request.head.headers);
    let how = PatchType::of(&sent).ok_or_else(|| {
        let mut status = Status::unsupported_media(PATCH_TYPES);
        if sent.starts_with("application/apply-patch") {
            status.message.push_str(" (server-side apply is not served yet: use client-side apply)");
        }
        status
    })?;
    let options = request.query.write_options("PatchOptions", request.agent())?;
    let body = server.read_body(body, &request.head.headers).await?;
    let answer = server.registry().patch(&request.ctx, &request.target(kind), how, body, &options).await?;
    render(server, request, answer, view)
}

async fn delete(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    request: &Incoming,
    body: RequestBody,
    verb: Verb,
) -> Result<Response<Body>, Status> {
    let view = negotiate::view(&request.head.headers, OBJECTS)?;
    let mut options = request.query.delete_options()?;
    let media = media_type(request)?;
    let body = server.read_body(body, &request.head.headers).await?;
    if !body.is_empty() {
        let expected = Expected { schema: "meta/v1.DeleteOptions", group: "", version: "", kind: "DeleteOptions" };
        let value = decode::body(&request.ctx, &expected, media, &body, registry::FieldValidation::Ignore)?;
        options = DeleteOptions { dry_run: options.dry_run, ..DeleteOptions::from_value(&value) };
        options.dry_run |= DeleteOptions::from_value(&value).dry_run;
    }
    if verb == Verb::DeleteCollection {
        let list = request.query.list_options()?;
        let page =
            server.registry().delete_collection(&request.ctx, &request.collection(kind), &list, &options).await?;
        return render(server, request, registry::Response::ok(registry::Body::List(page)), view);
    }
    let answer = server.registry().delete(&request.ctx, &request.target(kind), &options).await?;
    render(server, request, answer, view)
}

/// Hands the connection over.
async fn connect(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    mut request: Incoming,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let connector = server
        .parts
        .connector
        .as_ref()
        .ok_or_else(|| Status::service_unavailable("this server has no way to the nodes"))?;
    let upgrade = if wants_upgrade(&request.head.method, &request.head.headers) {
        request.head.extensions.remove::<hyper::upgrade::OnUpgrade>()
    } else {
        None
    };
    let labels = VerbLabels { verb: "connect".into(), resource: kind.plural.into() };
    let open = Open::new(server.metrics.long_running.get_or_create_owned(&labels)).in_place(server.long_running()?);
    let response = connector
        .connect(ConnectRequest {
            ctx: request.ctx.clone(),
            kind,
            namespace: request.info.namespace,
            name: request.info.name,
            subresource: request.info.subresource,
            rest: request.info.rest,
            query: request.query,
            method: request.head.method,
            uri: request.head.uri,
            headers: request.head.headers,
            body,
            upgrade,
        })
        .await;
    drop(open);
    response
}

fn media_type(request: &Incoming) -> Result<MediaType, Status> {
    MediaType::of(&negotiate::content_type(&request.head.headers))
        .ok_or_else(|| Status::unsupported_media(MediaType::ACCEPTED))
}

/// What the body of a write must be.
fn expected(kind: &'static Kind, subresource: &str) -> Expected<'static> {
    match kind.subresources.iter().find(|s| s.name == subresource) {
        Some(sub) => {
            let (group, version, name) = sub.response;
            Expected { schema: sub.schema, group, version, kind: name }
        }
        None => Expected { schema: kind.schema, group: kind.group, version: kind.version, kind: kind.kind },
    }
}

/// The registry's answer in the form that was asked for.
fn render(
    server: &Arc<ApiServer>,
    request: &Incoming,
    answer: registry::Response,
    view: View,
) -> Result<Response<Body>, Status> {
    let (code, indent, now) = (answer.code, request.indent, server.env.wall());
    match answer.body {
        registry::Body::Status(mut status) => {
            status.code = code;
            Ok(respond::status(&status, indent))
        }
        registry::Body::Value { schema, mut value } => {
            if view != View::Object && schema.is_empty() {
                return Ok(respond::value(code, &value, indent));
            }
            if value.get("kind").is_none()
                && let Some(kind) =
                    server.registry().kinds().get(&request.info.group, &request.info.version, &request.info.resource)
            {
                set_type(&mut value, kind);
            }
            Ok(respond::json(code, transform::ordered(schema, &value), indent))
        }
        registry::Body::Object(served) => {
            let bytes = match view {
                View::Object => served.json(),
                View::Metadata => transform::partial(&served),
                View::Table => transform::table_one(&served, request.include()?, now, true),
            };
            Ok(respond::json(code, bytes, indent))
        }
        registry::Body::List(page) => Ok(match view {
            View::Object => respond::chunks(code, page.into_chunks(), indent),
            View::Metadata => respond::chunks(code, transform::partial_list(page), indent),
            View::Table => respond::chunks(code, transform::table_list(page, request.include()?, now), indent),
        }),
    }
}
