//! Named crash points, in debug builds: `STRATUS_CRASH_AT=<point>:<n>` ends the process, without any clean-up, when
//! the point is reached for the n-th time. There is one on every step between two writes, so that a test can cut
//! the power exactly there.

/// Every crash point of the product, for the test that visits them all.
pub const POINTS: &[&str] = &[
    "append:half-written",
    "append:before-answer",
    "ingest:before-dead-letters",
    "ingest:after-dead-letters",
    "ingest:after-events",
    "speed:after-take-over",
    "speed:after-claim",
    "speed:before-append",
    "speed:after-append",
    "speed:between-shards",
    "speed:after-shards",
    "speed:after-commit",
    "speed:after-cut",
    "speed:after-floor",
    "speed:between-drops",
    "batch:after-request",
    "batch:after-cut",
    "batch:after-files",
    "batch:after-publish",
];

/// Says that the process has come to a point. Does nothing in release builds.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    reached::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod reached {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        point: String,
        left: AtomicU64,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let setting = std::env::var("STRATUS_CRASH_AT").ok()?;
            let (point, times) = setting.rsplit_once(':')?;
            Some(Armed { point: point.to_owned(), left: AtomicU64::new(times.parse().ok()?) })
        };
        ARMED.get_or_init(read).as_ref()
    }

    pub(super) fn reach(name: &'static str) {
        debug_assert!(super::POINTS.contains(&name), "crash point {name} is not listed");
        let Some(armed) = armed().filter(|armed| armed.point == name) else { return };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Not a panic: nothing may be flushed, dropped or answered.
            eprintln!("crash point {name} reached");
            std::process::abort();
        }
    }
}
