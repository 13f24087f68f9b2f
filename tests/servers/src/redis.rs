//! A Redis server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{ServerProcess, free_port};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis server of its own: on a free port of loopback, in a folder of its own, with an append-only file and without
/// eviction. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    process: ServerProcess,
    folder: tempfile::TempDir,
    port: u16,
    url: String,
    args: Vec<String>,
}

impl Redis {
    /// Starts one. `args` follow the default ones and win over them. None, and loudly, if there is no `redis-server`
    /// on this machine.
    ///
    /// # Errors
    /// If it does not come up; with `CI=true` also if there is none.
    pub fn start(args: &[&str]) -> Result<Option<Self>> {
        if !is_there() {
            if std::env::var("CI").is_ok_and(|ci| ci == "true") {
                bail!("redis-server is needed: install Debian's redis-server, or run tests/run.sh");
            }
            eprintln!("warning: there is no redis-server on this machine: THIS TEST IS LEFT OUT");
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let mut last = None;
        // Another process may take the port between the look and the start.
        for _ in 0..3 {
            let port = free_port()?;
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            match launch(folder.path(), port, &args) {
                Ok(process) => {
                    let url = format!("redis://127.0.0.1:{port}");
                    return Ok(Some(Self { process, folder, port, url, args }));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no start was tried")?)
    }

    /// Starts a second server that follows this one.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn replica(&self) -> Result<Self> {
        let replica = Self::start(&[])?.context("redis-server is gone")?;
        replica.cli(&["REPLICAOF", "127.0.0.1", &self.port.to_string()])?;
        Ok(replica)
    }

    /// Waits until a server that follows another has all that the other one has.
    ///
    /// # Errors
    /// If it has not in time.
    pub fn until_caught_up(&self, primary: &Self) -> Result<()> {
        let began = Instant::now();
        let offset = |server: &Self, field: &str| -> Result<Option<u64>> {
            let told = server.cli(&["INFO", "replication"])?;
            Ok(told.lines().find_map(|line| line.trim_end().strip_prefix(field)?.parse().ok()))
        };
        loop {
            let wanted = offset(primary, "master_repl_offset:")?;
            let link = self.cli(&["INFO", "replication"])?;
            let linked = link.lines().any(|line| line.trim_end() == "master_link_status:up");
            if linked && wanted.is_some() && offset(self, "slave_repl_offset:")? >= wanted {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("the replica is not at {wanted:?} after {PATIENCE:?}:\n{link}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends its following with what it has by now, however little that is.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn promote(&self) -> Result<()> {
        self.cli(&["REPLICAOF", "NO", "ONE"]).map(drop)
    }

    /// Kills `other` and listens at its address from now on, with what this server holds.
    ///
    /// # Errors
    /// If the port cannot be had.
    pub fn take_the_place_of(&mut self, mut other: Self) -> Result<()> {
        other.kill()?;
        let port = other.port;
        self.cli(&["CONFIG", "SET", "port", &port.to_string()])?;
        self.port = port;
        self.url = other.url.clone();
        Ok(())
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder: the append-only files are in `appendonlydir`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// kill -9. The folder stays, for [`Redis::restart`].
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port and folder, after killing it if it runs.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        // It may have been killed already.
        let _ended = self.process.kill();
        self.process = launch(self.folder.path(), self.port, &self.args)?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, answers stay away.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Runs `redis-cli` on it and answers what it prints, without the last line's end.
    ///
    /// # Errors
    /// If redis-cli or the command fails.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let port = self.port.to_string();
        let mut command = Command::new("redis-cli");
        let ran = command.args(["-e", "-h", "127.0.0.1", "-p", &port]).args(args).output();
        let ran = ran.context("redis-cli cannot be run: it belongs to Debian's redis-tools")?;
        let text = String::from_utf8_lossy(&ran.stdout).trim_end().to_owned();
        if !ran.status.success() {
            bail!("redis-cli {args:?}: {text}{}", String::from_utf8_lossy(&ran.stderr));
        }
        Ok(text)
    }
}

fn is_there() -> bool {
    Command::new("redis-server").arg("--version").output().is_ok_and(|ran| ran.status.success())
}

fn launch(folder: &Path, port: u16, args: &[String]) -> Result<ServerProcess> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
    command.args(["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]);
    command.args(["--enable-debug-command", "local", "--repl-diskless-sync-delay", "0"]);
    command.args(args);
    let mut process = ServerProcess::spawn("redis-server", command, &folder.join("redis.log"))?;
    process.wait_until(PATIENCE, || answers(port))?;
    Ok(process)
}

/// Whether it answers at all. That it wants a password first is an answer; that it is still loading is none.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_survives_a_kill() {
        let Some(mut redis) = Redis::start(&["--appendfsync", "always"]).unwrap() else { return };
        assert_eq!(redis.cli(&["SET", "a", "1"]).unwrap(), "OK");
        assert!(redis.cli(&["HGET", "a", "1"]).is_err());
        redis.kill().unwrap();
        assert!(redis.cli(&["GET", "a"]).is_err());
        redis.restart().unwrap();
        assert_eq!(redis.cli(&["GET", "a"]).unwrap(), "1");
    }
}
