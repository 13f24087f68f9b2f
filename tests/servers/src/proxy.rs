//! A network that does harm: a proxy on loopback between a client and a server, with threads of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// What happens to the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// They pass.
    None,
    /// Those of the next piece, in either direction, pass after a while.
    Delay(Duration),
    /// The connection is closed instead of passing the next piece.
    Cut,
    /// Requests pass, answers are swallowed from now on: the client cannot know whether a request took effect.
    Mute,
}

/// Which way a piece goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    There,
    /// From the server to the client.
    Back,
}

/// Chooses what happens to each piece, told its way and its number.
pub type Plan = Box<dyn FnMut(Way, u64) -> Harm + Send>;

struct Shared {
    plan: Mutex<Plan>,
    pieces: AtomicU64,
    ended: AtomicBool,
    server: SocketAddr,
}

/// A proxy before one server. Dropping it ends it; connections that it carries end with their ends.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).field("server", &self.shared.server).finish()
    }
}

impl Proxy {
    /// Starts one before the server on `port` of loopback, that does no harm yet.
    ///
    /// # Errors
    /// If there is no port for it.
    pub fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            plan: Mutex::new(Box::new(|_, _| Harm::None)),
            pieces: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            server: SocketAddr::from(([127, 0, 0, 1], port)),
        });
        let carrier = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if carrier.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A server that is not there: the client sees its connection end.
                let Ok(server) = TcpStream::connect(carrier.server) else { continue };
                let _carried = carry(&carrier, client, server);
            }
        });
        Ok(Self { shared, address })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Does from now on what `plan` says, to new connections and old ones.
    pub fn harm(&self, plan: impl FnMut(Way, u64) -> Harm + Send + 'static) {
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(plan);
    }

    /// How many pieces it has seen.
    pub fn pieces(&self) -> u64 {
        self.shared.pieces.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; if that fails it has ended.
        let _woken = TcpStream::connect(self.address);
    }
}

fn carry(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ways = [(Way::There, client.try_clone()?, server.try_clone()?), (Way::Back, server, client)];
    for (way, from, to) in ways {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _passed = pass(&shared, way, &from, &to);
            // Either end may be gone already.
            let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

fn pass(shared: &Shared, way: Way, mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    let mut mute = false;
    loop {
        let len = from.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        let number = shared.pieces.fetch_add(1, Ordering::SeqCst);
        let harm = (shared.plan.lock().unwrap_or_else(PoisonError::into_inner))(way, number);
        match harm {
            Harm::None => {}
            Harm::Delay(time) => thread::sleep(time),
            Harm::Cut => return Ok(()),
            Harm::Mute => mute = true,
        }
        if !(mute && way == Way::Back) {
            to.write_all(&piece[..len])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"ping")?;
        stream.read_exact(&mut [0; 4])
    }

    #[test]
    fn pieces_pass_are_cut_or_swallowed() {
        let proxy = Proxy::start(echo()).unwrap();
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        };
        let mut stream = connect();
        ask(&mut stream).unwrap();
        assert_eq!(proxy.pieces(), 2);
        proxy.harm(|way, _| if way == Way::Back { Harm::Mute } else { Harm::None });
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        ask(&mut stream).unwrap_err();
        let begun = Instant::now();
        while proxy.pieces() < 4 && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(proxy.pieces(), 4, "the request arrived and was answered");
        proxy.harm(|_, _| Harm::Cut);
        let mut stream = connect();
        ask(&mut stream).unwrap_err();
        assert!(ask(&mut stream).is_err(), "it is closed");
        proxy.harm(|_, _| Harm::None);
        ask(&mut connect()).unwrap();
    }
}
