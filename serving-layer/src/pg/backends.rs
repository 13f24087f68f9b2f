//! The open connections, as cancel requests find them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: i32,
    backends: HashMap<i32, (i32, Arc<Notify>)>,
}

/// One open connection: what a cancel request must know, and how it arrives. Dropping it takes it off the list.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The number of the connection.
    pub(crate) process_id: i32,
    /// The proof that an asker was told it by this connection.
    pub(crate) secret: i32,
    /// Wakes the statement that runs, if one does; a request between two statements is lost, as it should be.
    pub(crate) cancelled: Arc<Notify>,
    backends: Arc<Backends>,
}

impl Backends {
    /// Puts a new connection on the list.
    pub(crate) fn open(self: &Arc<Self>) -> Backend {
        let cancelled = Arc::new(Notify::new());
        let secret = rand::random();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            open.last = if open.last == i32::MAX { 1 } else { open.last + 1 };
            let process_id = open.last;
            if let std::collections::hash_map::Entry::Vacant(place) = open.backends.entry(process_id) {
                place.insert((secret, Arc::clone(&cancelled)));
                return Backend { process_id, secret, cancelled, backends: Arc::clone(self) };
            }
        }
    }

    /// Carries out a cancel request, if it proves that it may.
    pub(crate) fn cancel(&self, process_id: i32, secret: i32) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.backends.get(&process_id) {
            Some((expected, cancelled)) if *expected == secret => cancelled.notify_waiters(),
            _ => tracing::debug!(process_id, "a cancel request for no open connection"),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let mut open = self.backends.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.backends.remove(&self.process_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn only_who_knows_the_secret_cancels_and_only_what_runs() {
        let backends = Arc::new(Backends::default());
        let (a, b) = (backends.open(), backends.open());
        assert_ne!(a.process_id, b.process_id);
        backends.cancel(a.process_id, a.secret);
        let mut waiting = std::pin::pin!(Arc::clone(&a.cancelled).notified_owned());
        waiting.as_mut().enable();
        backends.cancel(a.process_id, a.secret.wrapping_add(1));
        backends.cancel(b.process_id, b.secret);
        assert_eq!(waiting.as_mut().now_or_never(), None);
        backends.cancel(a.process_id, a.secret);
        assert_eq!(waiting.now_or_never(), Some(()));
        drop(a);
        assert_eq!(backends.open.lock().unwrap().backends.len(), 1);
    }
}
