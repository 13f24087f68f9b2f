//! Time as the engine sees it: the system's, or one that a test moves by hand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// A clock that all time-outs, ticks and latencies of a cluster come from. Cloning shares it.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System(Instant),
    Manual(Arc<Mutex<Hand>>),
}

#[derive(Default)]
struct Hand {
    now: Duration,
    /// Who waits, by the time waited for; the number keeps equal times apart.
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    arrivals: u64,
}

/// A sleeper's place. Whoever no longer waits gives it up: loops wait for the same time again and again, each time
/// until something else happens.
struct Place<'a> {
    hand: &'a Mutex<Hand>,
    key: (Duration, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(self.hand).sleepers.remove(&self.key);
    }
}

/// Moves the time of a manual [`Clock`].
#[derive(Clone)]
pub struct ClockHand(Arc<Mutex<Hand>>);

impl Clock {
    /// The system's monotonic time.
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands still until its hand is moved.
    pub fn manual() -> (Self, ClockHand) {
        let hand = Arc::new(Mutex::new(Hand::default()));
        (Self(Source::Manual(Arc::clone(&hand))), ClockHand(hand))
    }

    /// Time since the clock was made.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System(start) => start.elapsed(),
            Source::Manual(hand) => lock(hand).now,
        }
    }

    /// Returns once [`now`](Self::now) has reached `time`; never, if the clock cannot show so late a time.
    pub async fn sleep_until(&self, time: Duration) {
        match &self.0 {
            Source::System(start) => match start.checked_add(time) {
                Some(time) => tokio::time::sleep_until(time).await,
                None => std::future::pending().await,
            },
            Source::Manual(hand) => {
                let (woken, _place) = {
                    let mut locked = lock(hand);
                    if locked.now >= time {
                        return;
                    }
                    let (waker, woken) = oneshot::channel();
                    locked.arrivals += 1;
                    let key = (time, locked.arrivals);
                    locked.sleepers.insert(key, waker);
                    (woken, Place { hand, key })
                };
                // The hand is gone: nobody can move this clock any more, so its sleepers sleep.
                if woken.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Returns after `time` has passed.
    pub async fn sleep(&self, time: Duration) {
        self.sleep_until(self.now().saturating_add(time)).await;
    }
}

impl ClockHand {
    /// Moves the time on by `by` and wakes who waited for a time up to there.
    pub fn advance(&self, by: Duration) {
        let mut hand = lock(&self.0);
        hand.now += by;
        let now = hand.now;
        let rest = hand.sleepers.split_off(&(now, u64::MAX));
        for (_, sleeper) in std::mem::replace(&mut hand.sleepers, rest) {
            // One that no longer waits needs no waking.
            let _ = sleeper.send(());
        }
    }
}

fn lock(hand: &Mutex<Hand>) -> std::sync::MutexGuard<'_, Hand> {
    hand.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Source::System(_) => "system",
            Source::Manual(_) => "manual",
        };
        write!(f, "Clock({kind}, {:?})", self.now())
    }
}

impl fmt::Debug for ClockHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClockHand({:?})", lock(&self.0).now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let (clock, hand) = Clock::manual();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(10)).await;
                clock.now()
            }
        });
        tokio::task::yield_now().await;
        hand.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        hand.advance(Duration::from_secs(2));
        assert_eq!(sleeper.await.unwrap(), Duration::from_secs(11));
    }

    #[tokio::test]
    async fn who_no_longer_sleeps_leaves_nothing_behind() {
        let (clock, hand) = Clock::manual();
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = clock.sleep(Duration::from_secs(10)) => unreachable!("time stands still"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(lock(&hand.0).sleepers.is_empty());
    }
}
