//! What Triarch's processes say to each other, generated from `proto/*.proto`.
//! Messages only: what they mean is in the crates that use them.

#![allow(clippy::large_enum_variant, clippy::doc_lazy_continuation)]

/// Node agent and control plane.
pub mod node {
    tonic::include_proto!("triarch.node.v1");
}

/// Operators' commands and joining replicas.
pub mod admin {
    tonic::include_proto!("triarch.admin.v1");
}

/// Replica to replica.
pub mod raft {
    tonic::include_proto!("triarch.raft.v1");
}
