//! Servers that are there already, named by the environment: tests that leave a server as it is use these, each with
//! names of its own, and clean up. Tests that kill or configure a server start their own all the same.

use std::hash::{BuildHasher, RandomState};

/// Kafka's bootstrap servers, `host:port`, with commas between them.
pub(crate) const KAFKA: &str = "KAFKA_BROKERS";
/// The URL of a Redis server, `redis://[user:password@]host:port[/db]`.
pub(crate) const REDIS: &str = "REDIS_URL";
/// Why a server that is not ours is not ended.
pub(crate) const NOT_OURS: &str =
    "the server was given by the environment and is not ours to end: the test needs one of its own";

/// What a variable names.
pub(crate) fn address(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|address| !address.is_empty())
}

/// Says that a test does not use the server that a variable names.
pub(crate) fn unused(variable: &str, instead: &str) {
    if address(variable).is_some() {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("this test");
        eprintln!("note: {test} needs {instead} and starts it; {variable} is not used for it");
    }
}

/// A name that no other test and no other run of it has.
pub(crate) fn name() -> String {
    format!("stratus-test-{:016x}", RandomState::new().hash_one(std::process::id()))
}
