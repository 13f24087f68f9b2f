//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod operations;
mod states;
mod support;
mod word_count;
