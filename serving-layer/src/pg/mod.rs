//! The PostgreSQL front door: version 3 of the wire protocol, for psql and every driver.
//!
//! It is our own loop over the protocol's messages. The servers that exist for DataFusion could not be used: they
//! cannot cancel a statement that runs, know one SQLSTATE, share one session between all clients, and let SQL write
//! files of the server.
//!
//! A connection is one task. Its statements run on another runtime (`Options::queries`), so that a query that
//! computes never holds up a socket, and everything that a statement holds is let go when it is cancelled, when its
//! time is over, or when its client is gone. Clients prove their password by SCRAM-SHA-256 if there are users;
//! without users nobody is authenticated, and the listener belongs on the loopback interface. What follows is in
//! clear: there is no TLS.

mod arguments;
mod arrays;
mod backends;
mod binary;
pub mod catalog;
mod cells;
mod command;
mod connection;
mod errors;
mod extended;
mod functions;
mod lexer;
mod messages;
mod parameter;
mod relation_tables;
mod rows;
mod scram;
mod session;
mod settings;
mod startup;
mod text;
mod transaction;
mod translation;
mod types;
mod users;
mod wire;
mod work;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use self::backends::Backends;
use self::connection::Connection;
use self::errors::error;
use self::settings::Parameters;
use self::startup::Opened;
use self::wire::{Phase, Wire};
use self::work::Task;
use crate::service::{Client, SqlService};

pub use self::parameter::SERVER_VERSION;
pub use self::users::{UserError, Users};

/// How long a client may take to say what it wants.
const STARTUP_TIME: Duration = Duration::from_secs(10);
/// Connections beyond the limit that are heard at once: cancel requests must get through when the limit is reached,
/// and everybody else is told why not.
const SPARE_CONNECTIONS: usize = 32;

/// How the front door is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The one database that there is.
    pub database: String,
    /// How many clients may be connected at once.
    pub max_connections: usize,
    /// How long statements that run may go on after the shutdown has begun.
    pub drain: Duration,
    /// Who may connect; none: whoever can reach the listener.
    pub users: Option<Arc<Users>>,
    /// Where statements run; the sockets stay on the runtime that calls [`serve`].
    pub queries: Handle,
}

impl Options {
    /// The database `stratus`, 100 connections, 10 seconds to drain.
    pub fn new(queries: Handle) -> Self {
        Self {
            database: "stratus".to_owned(),
            max_connections: 100,
            drain: Duration::from_secs(10),
            users: None,
            queries,
        }
    }
}

/// What the connections of one listener share.
struct Server {
    service: Arc<dyn SqlService>,
    options: Options,
    backends: Arc<Backends>,
    connections: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

/// Serves clients until `shutdown` is ready. Then no client is let in, connections without a running statement end
/// at once (57P01), and the others when their statement is done, at the latest after `options.drain`.
///
/// # Errors
/// If the listener cannot be used at all. Troubles of single connections are theirs alone.
pub async fn serve(
    listener: TcpListener,
    service: Arc<dyn SqlService>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (phase, phases) = watch::channel(Phase::Serving);
    let drain = options.drain;
    let heard = Arc::new(Semaphore::new(options.max_connections + SPARE_CONNECTIONS));
    let server = Arc::new(Server {
        service,
        connections: Arc::new(Semaphore::new(options.max_connections)),
        options,
        backends: Arc::new(Backends::default()),
        phase: phases,
    });
    tracing::info!(%address, "listening for PostgreSQL clients");
    let mut tasks = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &heard) => match accepted {
                Ok((socket, permit)) => {
                    let server = Arc::clone(&server);
                    tasks.spawn(async move {
                        server.attend(socket).await;
                        drop(permit);
                    });
                }
                Err(cause) => {
                    // Out of file descriptors, most likely: others must end before one can begin.
                    tracing::warn!(%cause, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = tasks.join_next() => {
                if let Err(cause) = ended {
                    tracing::error!(%cause, "a connection's task has failed");
                }
            }
        }
    }
    drop(listener);
    for (next, time) in [(Phase::Draining, drain), (Phase::Ending, Duration::from_secs(2))] {
        phase.send_replace(next);
        if tokio::time::timeout(time, async { while tasks.join_next().await.is_some() {} }).await.is_ok() {
            break;
        }
    }
    tasks.shutdown().await;
    tracing::info!(%address, "no longer listening for PostgreSQL clients");
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    heard: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(heard).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    Ok((socket, permit))
}

/// Waits for the beginning of the shutdown.
async fn ends(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
}

impl Server {
    /// Attends to one client from its first message to its last.
    async fn attend(&self, socket: TcpStream) {
        let Ok(mut wire) = Wire::new(socket) else {
            return;
        };
        let mut phase = self.phase.clone();
        let opened = tokio::select! {
            opened = tokio::time::timeout(STARTUP_TIME, startup::open(&mut wire, &self.backends)) => match opened {
                Ok(Ok(opened)) => opened,
                Ok(Err(_)) | Err(_) => return,
            },
            () = ends(&mut phase) => Opened::Refused(error("57P03", "the database system is shutting down")),
        };
        let request = match opened {
            Opened::Request(request) => request,
            Opened::Refused(refused) => return wire.close_with(&refused).await,
            Opened::Closed => return,
        };
        if request.database != self.options.database {
            let mut refused = error("3D000", format!("database \"{}\" does not exist", request.database));
            refused.hint = Some(format!("the database is \"{}\"", self.options.database));
            return wire.close_with(&refused).await;
        }
        if let Some(users) = &self.options.users {
            let proved = startup::authenticate(&mut wire, &request.user, users);
            let proved = tokio::select! {
                proved = tokio::time::timeout(STARTUP_TIME, proved) => proved,
                () = ends(&mut phase) => return,
            };
            match proved {
                Ok(Ok(Some(Ok(())))) => {}
                Ok(Ok(Some(Err(refused)))) => {
                    // What a client calls itself is a field, which is escaped: it writes no line of its own.
                    tracing::warn!(user = request.user, sqlstate = refused.sqlstate, "a client was refused");
                    return wire.close_with(&refused).await;
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            }
        }
        let Ok(_permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            return wire.close_with(&error("53300", "sorry, too many clients already")).await;
        };
        let backend = self.backends.open();
        let (mut parameters, notices) = Parameters::start(&request.user, &request.settings);
        let client = Client {
            user: request.user.clone(),
            process_id: backend.process_id,
            settings: parameters.shared(),
        };
        let service = Arc::clone(&self.service);
        let opening = Task::start(&self.options.queries, async move { service.session(client).await });
        let session = match opening.await {
            Ok(Ok(session)) => Arc::from(session),
            Ok(Err(refused)) | Err(refused) => return wire.close_with(&refused).await,
        };
        let (process_id, secret) = (backend.process_id, backend.secret);
        if startup::greet(&mut wire, &request, &mut parameters, &notices, process_id, secret).await.is_err() {
            return;
        }
        match self.options.users {
            Some(_) => tracing::info!(process_id, user = request.user, "a user is connected"),
            None => tracing::debug!(process_id, user = request.user, "a client is connected"),
        }
        let queries = self.options.queries.clone();
        Connection::new(wire, session, queries, backend, self.phase.clone(), parameters).run().await;
        tracing::debug!(process_id, "a client is gone");
    }
}
