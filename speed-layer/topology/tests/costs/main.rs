//! What the engine costs: time, and memory as the allocator sees it. The tests come one after the other: they count in one
//! place, and do not take time from each other.

#![allow(clippy::unwrap_used, unsafe_code)]

mod backlog;
mod bytes;
mod calls;
mod counting;
mod kit;
