//! Connections to the server. Calls share a few of them; one that failed is replaced, never used again: an answer to
//! an earlier question may still come over it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Value};
use tokio::sync::Mutex;

use super::address::Address;
use super::library::LIBRARY;
use super::trouble::{OpenError, Trouble};
use super::whole;

/// Connections for small calls, which commits are among, and for pages, which must not hold those up.
const SMALL: usize = 2;
const PAGES: usize = 2;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Nothing was sent then.
const NO_CONNECTION: &str = "no connection in time: the server is not reached, or does not answer";

/// What a call is, for the choice of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Small,
    Pages,
}

#[derive(Default)]
struct Slot {
    open: Option<MultiplexedConnection>,
    /// How many were made. Tells whether the one that failed is still the one in the slot.
    made: u64,
}

pub(super) struct Connections {
    client: Client,
    config: AsyncConnectionConfig,
    slots: [Mutex<Slot>; SMALL + PAGES],
    turn: AtomicUsize,
    /// How long a call may wait for a connection.
    patience: Duration,
    namespace: String,
    /// Where the server is, without secrets.
    pub(super) server: String,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.server).finish()
    }
}

impl Connections {
    /// Nothing is connected yet.
    pub(super) fn to(address: &Address) -> Result<Self, OpenError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT.min(address.patience)))
            .set_response_timeout(Some(address.patience));
        Ok(Self {
            client: address.client()?,
            config,
            slots: Default::default(),
            turn: AtomicUsize::new(0),
            patience: address.patience,
            namespace: address.namespace.clone(),
            server: address.server.clone(),
        })
    }

    fn slot(&self, lane: Lane) -> &Mutex<Slot> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match lane {
            Lane::Small => &self.slots[turn % SMALL],
            Lane::Pages => &self.slots[SMALL + turn % PAGES],
        }
    }

    /// A slot's connection, made if there is none, with its number.
    async fn connected(&self, slot: &Mutex<Slot>) -> Result<(MultiplexedConnection, u64), Trouble> {
        let mut slot = slot.lock().await;
        if let Some(open) = &slot.open {
            return Ok((open.clone(), slot.made));
        }
        let mut made = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        whole::ensure(&mut made, &self.namespace).await?;
        slot.open = Some(made.clone());
        slot.made += 1;
        Ok((made, slot.made))
    }

    /// Runs one command once. It may have taken effect although an error is answered.
    pub(super) async fn run(&self, lane: Lane, command: &Cmd) -> Result<Value, Trouble> {
        let slot = self.slot(lane);
        // Whoever waits for one that another call is making has its own time: in line before a server that accepts
        // connections and says nothing, each would otherwise begin a wait when the one before it has ended.
        let (mut connection, made) = match tokio::time::timeout(self.patience, self.connected(slot)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(Trouble::Redis(std::io::Error::other(NO_CONNECTION).into())),
        };
        let answer = command.query_async::<Value>(&mut connection).await.map_err(Trouble::from);
        if answer.as_ref().is_err_and(|trouble| !trouble.is_answer()) {
            let mut slot = slot.lock().await;
            if slot.made == made {
                slot.open = None;
            }
        }
        answer
    }

    /// Calls a function of ours on the keys beside `key`. A server that does not know it gets the library first: it
    /// is new, was flushed, or has just become the master.
    pub(super) async fn call(
        &self,
        lane: Lane,
        function: &str,
        key: &str,
        args: &[&str],
    ) -> Result<Value, Trouble> {
        let mut command = redis::cmd("FCALL");
        command.arg(LIBRARY.function(function)).arg(1).arg(key).arg(args);
        match self.run(lane, &command).await {
            Err(trouble) if trouble.is_unknown_function() => {
                self.load().await?;
                self.run(lane, &command).await
            }
            answer => answer,
        }
    }

    /// Gives the server our functions.
    pub(super) async fn load(&self) -> Result<(), Trouble> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(&LIBRARY.code);
        self.run(Lane::Small, &load).await.map(|_| ())
    }
}
