//! The last line of defence: nothing that runs a topology ends before it without a word.

use std::sync::{Arc, Mutex, PoisonError};

use crate::executor::{Command, guarded};

/// Why a topology has failed, once it has: the first reason.
#[derive(Debug, Default)]
pub(super) struct Failure(Mutex<Option<String>>);

impl Failure {
    pub(super) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, reason: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }
}

/// Works to the end. Executors start over by themselves after a panic; if `work` is over all the same while the
/// topology is not, whoever sends to it would be told that the topology ends, and would stop quietly. So this says that
/// the topology has failed.
pub(super) async fn watched(
    what: String,
    work: impl Future<Output = ()>,
    command: Command,
    failure: Arc<Failure>,
) {
    let reason = match guarded(work).await {
        Err(panic) => format!("{what} panicked: {panic}"),
        Ok(()) if !command.is_over() => format!("{what} ended before its topology"),
        Ok(()) => return,
    };
    tracing::error!(reason, "a topology has failed");
    failure.tell(reason);
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::executor::Orders;

    #[tokio::test]
    async fn whatever_ends_before_its_topology_is_why_it_has_failed() {
        let (orders, command) = watch::channel(Orders::Work);
        let failure = Arc::new(Failure::default());
        let watch = |work: bool| {
            let work = async move { assert!(work, "no more") };
            watched("an acker".to_owned(), work, Command(command.clone()), Arc::clone(&failure))
        };
        assert_eq!(failure.reason(), None);
        watch(false).await;
        assert_eq!(failure.reason().unwrap(), "an acker panicked: no more");
        // The first reason stays.
        watch(true).await;
        assert_eq!(failure.reason().unwrap(), "an acker panicked: no more");
        *failure.0.lock().unwrap() = None;
        watch(true).await;
        assert_eq!(failure.reason().unwrap(), "an acker ended before its topology");
        *failure.0.lock().unwrap() = None;
        orders.send_replace(Orders::End);
        watch(true).await;
        assert_eq!(failure.reason(), None);
    }
}
