//! What runs inside the server. Each is atomic by itself, and all checks come before the first write, because what a
//! script has written stays when it fails. Numbers are compared as text, so that no digit is lost in Lua's doubles.

use std::sync::LazyLock;

use redis::Script;

/// A script, and the hash that the server knows it by.
pub(super) struct Code {
    pub(super) text: &'static str,
    pub(super) hash: String,
}

impl Code {
    fn of(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }
}

/// Begins a state, or says of what kind it is. KEYS: meta, values. ARGV: kind.
pub(super) static CLAIM: LazyLock<Code> = LazyLock::new(|| Code::of(include_str!("claim.lua")));

/// Puts values. KEYS: meta, values. ARGV: kind, txid (`0` if it is not guarded), how many writes there must be at least,
/// the attempt's fence (`0` if it has none), then key and value in turn. Answers `put` with how many writes there are now,
/// `cleared`, `lost`, `back` with how many there are, `behind` with the highest txid, or `replaced`.
pub(super) static PUT: LazyLock<Code> = LazyLock::new(|| Code::of(include_str!("put.lua")));
