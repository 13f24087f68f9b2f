//! The harness of the end-to-end and fault tests: the real binary in a folder of its own, events from a seeded
//! generator that keeps the true answer, and a checker that asks all the time.
//!
//! Each test starts its own process on free ports and ends it, also when the test fails.

pub mod checker;
pub mod events;
pub mod http;
pub mod process;
pub mod producers;
pub mod yahoo;

/// One test at a time: each of them wants the machine to itself.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// How many events a fault test sends: 200,000 unless `STRATUS_TEST_EVENTS` says otherwise.
pub fn event_count() -> u64 {
    std::env::var("STRATUS_TEST_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000)
}
