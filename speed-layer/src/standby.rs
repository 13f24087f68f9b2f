//! Standing by while another process works on the same source.
//!
//! Two coordinators of one source can do no harm: every write of the one who lost the ledger is refused. But if both
//! took it back at once they would take it from one another for ever. So the one that lost it waits until the other
//! one has been silent for a while; and the one that works breaks its own silence when there is nothing to do.

use std::time::{Duration, Instant};

use stratus_seam::ids::Token;
use stratus_seam::ledger::Ledger;
use stratus_seam::store::{LedgerStore, StoreError};

/// How long a writer may be silent before another one takes its place.
const SILENCE: Duration = Duration::from_secs(5);
/// How often a writer that has nothing to write says that it is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(1_500);
/// Between two looks at the ledger.
const POLL: Duration = Duration::from_millis(250);

/// What one who stands by has seen.
#[derive(Debug)]
struct Watch {
    seen: Option<(Token, u64)>,
    since: Instant,
}

impl Watch {
    /// Whether to take over now: nobody else has the ledger, or they have been silent for long enough.
    fn is_over(&mut self, ledger: Option<&Ledger>, own: &[Token], now: Instant) -> bool {
        let Some(ledger) = ledger.filter(|ledger| !own.contains(&ledger.token)) else { return true };
        let found = Some((ledger.token, ledger.revision));
        if self.seen != found {
            (self.seen, self.since) = (found, now);
        }
        now.duration_since(self.since) >= SILENCE
    }
}

/// Waits until the ledger is free to be taken: its writer is none of the `own` tokens and has gone on writing. While
/// the store does not answer nobody can tell, so that is no silence of the writer's.
pub(crate) async fn stand_by(store: &dyn LedgerStore, own: &[Token], source: &str) {
    wait(|| store.read(), own, source).await;
}

async fn wait<F>(mut read: impl FnMut() -> F, own: &[Token], source: &str)
where
    F: Future<Output = Result<Option<Ledger>, StoreError>>,
{
    let mut watch = Watch { seen: None, since: Instant::now() };
    let mut told = false;
    loop {
        let asked = Instant::now();
        let answer = read().await;
        if asked.elapsed() > POLL {
            // An answer that was long in coming says nothing of the time that it took.
            watch.seen = None;
        }
        match answer {
            Ok(ledger) if watch.is_over(ledger.as_ref(), own, Instant::now()) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(source, "the ledger cannot be read: {error}");
                watch.seen = None;
            }
        }
        if !told {
            told = true;
            tracing::warn!(source, "another process runs the speed layer of this source: this one stands by");
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use stratus_seam::log::LogId;
    use stratus_seam::offsets::OffsetVector;

    use super::*;

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_no_silence_of_the_writer() {
        let zero = OffsetVector::zero;
        let mut theirs = Ledger::begin("test", "e", LogId("l".into()), 2, &BTreeMap::new(), zero(), 0);
        let mut reads = 0;
        let read = || {
            reads += 1;
            std::future::ready(match reads {
                1 | 3 => Err(StoreError::Unavailable { what: "reading".into(), source: "no answer".into() }),
                2 | 4 => {
                    theirs = theirs.heartbeat();
                    Ok(Some(theirs.clone()))
                }
                _ => Ok(None),
            })
        };
        wait(read, &[], "s").await;
        assert_eq!(reads, 5, "until there was no writer");
    }

    #[test]
    fn a_silent_writer_is_replaced_and_a_busy_one_is_not() {
        let zero = OffsetVector::zero;
        let theirs = Ledger::begin("test", "e", LogId("l".into()), 2, &BTreeMap::new(), zero(), 0);
        let began = Instant::now();
        let mut watch = Watch { seen: None, since: began };
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!(!watch.is_over(Some(&theirs), &[], at(0)));
        assert!(!watch.is_over(Some(&theirs), &[], at(4)));
        let later = theirs.heartbeat();
        assert!(!watch.is_over(Some(&later), &[], at(6)), "it has written meanwhile");
        assert!(!watch.is_over(Some(&later), &[], at(10)));
        assert!(watch.is_over(Some(&later), &[], at(11)));
        assert!(watch.is_over(Some(&theirs), &[theirs.token], at(0)), "it is our own");
        assert!(watch.is_over(None, &[], at(0)), "there is none");
    }
}
