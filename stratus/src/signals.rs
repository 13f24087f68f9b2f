//! SIGTERM and SIGINT: the first asks for an orderly end, the second one ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::INTERRUPTED;

/// Whether the process has been asked to stop.
#[derive(Debug, Clone)]
pub(crate) struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Listens from now on, for the life of the process.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if ask.send_replace(true) {
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        });
        Ok(Self(asked))
    }

    /// Resolves when the process has been asked to stop.
    pub(crate) async fn asked(&self) {
        let mut asked = self.0.clone();
        // The sender lives as long as the process.
        _ = asked.wait_for(|asked| *asked).await;
    }
}
