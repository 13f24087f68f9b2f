//! The values of settings: from text to what they mean.

use std::fmt;
use std::net::SocketAddr;

use super::layers::Value;
use super::{Problem, StateKind};

/// More shards than this would be more redb tables and commits than any one process has a use for.
const MOST_SHARDS: u32 = 1024;

/// A text that is never shown: a password, or a setting that may be one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The scheme of a URL, none for a path.
fn scheme(url: &str) -> Option<&str> {
    url.split_once("://").map(|(scheme, _)| scheme)
}

pub(super) fn lake_url(url: &str) -> Result<String, Problem> {
    match scheme(url) {
        None | Some("file" | "memory") => Ok(url.to_owned()),
        Some(scheme) => Err(Problem::new(format!("a lake on {scheme}:// is not in this version"))
            .hint("give a folder, as in lake.url = \"/var/lib/stratus/lake\"")),
    }
}

pub(super) fn state_kind(kind: &str) -> Result<StateKind, Problem> {
    match kind {
        "redb" => Ok(StateKind::Redb),
        "memory" => Ok(StateKind::Memory),
        "redis" => Ok(StateKind::Redis),
        other => Err(Problem::new(format!("there is no state store \"{other}\""))
            .hint("state.kind is \"redb\" (the default), \"redis\" or \"memory\"")),
    }
}

pub(super) fn state_url(url: &str) -> Result<String, Problem> {
    match scheme(url) {
        None => Ok(url.to_owned()),
        Some("file") => Ok(url.trim_start_matches("file://").to_owned()),
        Some(_) if is_redis(url) => Ok(url.to_owned()),
        Some(scheme) => Err(Problem::new(format!("state on {scheme}:// is not in this version"))
            .hint("give the path of redb's file, or the URL of a Redis server (redis:// or rediss://)")),
    }
}

pub(super) fn shards(value: &Value) -> Result<u32, Problem> {
    let wanted = || Problem::new(format!("state.shards is a whole number from 1 to {MOST_SHARDS}"));
    let number = value.integer().ok_or_else(wanted)?;
    u32::try_from(number).ok().filter(|shards| (1..=MOST_SHARDS).contains(shards)).ok_or_else(wanted)
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, Problem> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let address = numeric.parse().map_err(|_| {
        Problem::new(format!("\"{text}\" is not an address and a port"))
            .hint("write it as \"127.0.0.1:8080\"")
    })?;
    Ok(address)
}

/// Whether a URL is one of a Redis server.
pub(super) fn is_redis(url: &str) -> bool {
    matches!(scheme(url), Some("redis" | "rediss" | "redis+unix" | "unix"))
}

/// The bootstrap servers: one text with commas, or a list.
pub(super) fn brokers(value: &Value) -> Result<String, Problem> {
    let text = match value {
        Value::Texts(texts) => texts.join(","),
        other => other.text()?.to_owned(),
    };
    let brokers: Vec<&str> = text.split(',').map(str::trim).filter(|broker| !broker.is_empty()).collect();
    match brokers.iter().find(|broker| broker.contains("://") || broker.contains('@')) {
        None if brokers.is_empty() => Err(Problem::new("there is no broker in it")),
        None => Ok(brokers.join(",")),
        Some(_) => Err(Problem::new("a broker is host:port, without scheme or user")
            .hint("security.protocol, sasl.username and the like go under [kafka.properties]")),
    }
}

/// A URL without its user, password and parameters.
pub(super) fn redacted(url: &str) -> String {
    let (url, parameters) = match url.split_once('?') {
        Some((url, _)) => (url, "?***"),
        None => (url, ""),
    };
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}{parameters}"),
            None => format!("{url}{parameters}"),
        },
        None => format!("{url}{parameters}"),
    }
}
