//! Storm topologies over columnar streams.

#![cfg_attr(test, allow(clippy::unwrap_used))]
