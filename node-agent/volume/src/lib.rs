//! Volumes of pods on a node's disk.
pub mod spec;
