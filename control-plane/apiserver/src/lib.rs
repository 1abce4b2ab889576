//! The HTTP API: paths, content negotiation, discovery, OpenAPI, watch streams,
//! limits, audit and metrics around the registry's verbs.
//!
//! Owns listeners and connections; knows no kind and keeps no state of the
//! API. Who somebody is and what they may do is decided by the authenticator
//! and authorizer that it is given; streams to nodes by the [`Connector`].

pub mod audit;
mod body;
mod bounds;
pub mod connect;
mod discovery;
mod health;
mod info;
pub mod listen;
mod metrics;
mod negotiate;
mod openapi;
mod paths;
mod pretty;
mod query;
mod resource;
pub mod respond;
pub mod server;
mod together;
mod transform;
mod turn;
mod version;
mod watch;

pub use audit::{Audit, AuditConfig};
pub use bounds::{Bounds, Connections, Refusal};
pub use connect::{BoxError, ConnectRequest, Connector, RequestBody};
pub use health::Check;
pub use info::RequestInfo;
pub use listen::{Handler, Tls, bind, http, serve, serve_unix};
pub use query::Query;
pub use respond::Body;
pub use server::{ApiServer, Limits, Page, Parts, Peer, forbidden};
pub use version::VersionInfo;
