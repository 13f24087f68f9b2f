//! The speed layer's public parts, from outside.

#![allow(clippy::unwrap_used, missing_docs)]

mod combiner;
