//! The engine as its users see it.

#![allow(clippy::unwrap_used)]

mod word_count;
