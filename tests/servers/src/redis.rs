//! Redis for tests: a server of our own, or the one that `REDIS_URL` names.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{ServerProcess, free_port, given};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis server, and a namespace in it. A server of our own is on a free port of loopback, in a folder of its own,
/// with an append-only file and without eviction, and is killed when this is dropped; on a given one what the
/// namespace holds is deleted.
#[derive(Debug)]
pub struct Redis {
    own: Option<Own>,
    port: u16,
    /// Without parameters.
    address: String,
    url: String,
    namespace: String,
}

#[derive(Debug)]
struct Own {
    process: ServerProcess,
    folder: tempfile::TempDir,
    args: Vec<String>,
}

impl Redis {
    /// Starts one, for tests that kill it, configure it, or look at all that it holds; its namespace is the default
    /// one. `args` follow the default ones and win over them. None, and loudly, if there is no `redis-server` on this
    /// machine.
    ///
    /// # Errors
    /// If it does not come up; with `CI=true` also if there is none.
    pub fn start(args: &[&str]) -> Result<Option<Self>> {
        given::unused(given::REDIS, "a Redis server of its own");
        Self::own(args)
    }

    /// A namespace of the test's own: in the server that `REDIS_URL` names, or in one as [`Redis::start`] starts it.
    ///
    /// # Errors
    /// If there is none and none can be started.
    pub fn shared() -> Result<Option<Self>> {
        let Some(address) = given::address(given::REDIS) else {
            return Ok(Self::own(&[])?.map(Self::within_a_namespace));
        };
        let address = address.split('?').next().unwrap_or_default().to_owned();
        let port = Login::of(&address).port;
        let found = Self { own: None, port, url: String::new(), address, namespace: String::new() };
        Ok(Some(found.within_a_namespace()))
    }

    fn within_a_namespace(mut self) -> Self {
        self.namespace = given::name();
        self.url = format!("{}?namespace={}", self.address, self.namespace);
        self
    }

    fn own(args: &[&str]) -> Result<Option<Self>> {
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
                    let own = Some(Own { process, folder, args });
                    let address = format!("redis://127.0.0.1:{port}");
                    let (url, namespace) = (address.clone(), "stratus".to_owned());
                    return Ok(Some(Self { own, port, address, url, namespace }));
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
        let replica = Self::own(&[])?.context("redis-server is gone")?;
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

    /// Kills `other` and is known by its address from now on, with what this server holds.
    ///
    /// # Errors
    /// If the port cannot be had.
    pub fn take_the_place_of(&mut self, mut other: Self) -> Result<()> {
        other.kill()?;
        let port = other.port;
        self.cli(&["CONFIG", "SET", "port", &port.to_string()])?;
        self.port = port;
        for (ours, theirs) in [
            (&mut self.address, &mut other.address),
            (&mut self.url, &mut other.url),
            (&mut self.namespace, &mut other.namespace),
        ] {
            std::mem::swap(ours, theirs);
        }
        Ok(())
    }

    /// The URL for a store: `redis://127.0.0.1:<port>`, with the namespace if it is not the default one.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The first part of every key.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its folder: the append-only files are in `appendonlydir`.
    ///
    /// # Errors
    /// If the server is not ours.
    pub fn folder(&self) -> Result<&Path> {
        Ok(self.server()?.folder.path())
    }

    fn server(&self) -> Result<&Own> {
        self.own.as_ref().context(given::NOT_OURS)
    }

    /// kill -9. The folder stays, for [`Redis::restart`].
    ///
    /// # Errors
    /// If it cannot be killed, or is not ours.
    pub fn kill(&mut self) -> Result<()> {
        self.own.as_mut().context(given::NOT_OURS)?.process.kill()
    }

    /// Starts it again on the same port and folder, after killing it if it runs.
    ///
    /// # Errors
    /// If it does not come up, or is not ours.
    pub fn restart(&mut self) -> Result<()> {
        let own = self.own.as_mut().context(given::NOT_OURS)?;
        // It may have been killed already.
        let _ended = own.process.kill();
        own.process = launch(own.folder.path(), self.port, &own.args)?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, answers stay away.
    ///
    /// # Errors
    /// If it cannot be signalled, or is not ours.
    pub fn pause(&self) -> Result<()> {
        self.server()?.process.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it cannot be signalled, or is not ours.
    pub fn resume(&self) -> Result<()> {
        self.server()?.process.resume()
    }

    /// Takes away all that the namespace holds, in one moment; of a server of our own all that there is.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn flush(&self) -> Result<()> {
        if self.own.is_some() {
            return self.cli(&["FLUSHALL"]).map(drop);
        }
        let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end";
        // A store's keys begin with the namespace in braces, which is all of a tag or its first part.
        for pattern in [format!("{{{}}}:*", self.namespace), format!("{{{}:*", self.namespace)] {
            self.cli(&["EVAL", script, "0", &pattern])?;
        }
        Ok(())
    }

    /// Runs `redis-cli` on it and answers what it prints, without the last line's end.
    ///
    /// # Errors
    /// If redis-cli or the command fails.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let Login { tls, user, password, host, database, .. } = Login::of(&self.address);
        let mut command = Command::new("redis-cli");
        command.args(["-e", "--no-auth-warning", "-h", host, "-p", &self.port.to_string(), "-n", database]);
        if !user.is_empty() {
            command.args(["--user", user]);
        }
        if !password.is_empty() {
            // Not an argument: those can be seen by everybody on the machine.
            command.env("REDISCLI_AUTH", password);
        }
        if tls {
            command.arg("--tls");
        }
        let ran = command.args(args).output();
        let ran = ran.context("redis-cli cannot be run: it belongs to Debian's redis-tools")?;
        let text = String::from_utf8_lossy(&ran.stdout).trim_end().to_owned();
        if !ran.status.success() {
            bail!("redis-cli {args:?}: {text}{}", String::from_utf8_lossy(&ran.stderr));
        }
        Ok(text)
    }
}

/// What `redis-cli` has to be told of an address, `redis://[user:password@]host[:port][/db]` without
/// percent-encoded characters. Its own `-u` takes a password without a user for that of a user without a name.
struct Login<'a> {
    tls: bool,
    user: &'a str,
    password: &'a str,
    host: &'a str,
    port: u16,
    database: &'a str,
}

impl<'a> Login<'a> {
    fn of(address: &'a str) -> Self {
        let (scheme, rest) = address.split_once("://").unwrap_or(("redis", address));
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
        let port = port.parse().unwrap_or(6379);
        let database = if database.is_empty() { "0" } else { database };
        Self { tls: scheme == "rediss", user, password, host, port, database }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.own.is_none()
            && let Err(error) = self.flush()
        {
            eprintln!("warning: keys of namespace {} are left behind: {error:#}", self.namespace);
        }
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

    #[test]
    fn an_address_is_told_to_redis_cli_in_parts() {
        let parts = |address| {
            let Login { tls, user, password, host, port, database } = Login::of(address);
            format!("{tls} {user:?} {password:?} {host} {port} {database}")
        };
        assert_eq!(parts("redis://h"), "false \"\" \"\" h 6379 0");
        assert_eq!(parts("redis://:p@w@h:1/2"), "false \"\" \"p@w\" h 1 2");
        assert_eq!(parts("rediss://u:p@h:1"), "true \"u\" \"p\" h 1 0");
    }

    #[test]
    fn a_given_server_keeps_what_others_have_there() {
        let Some(server) = Redis::start(&[]).unwrap() else { return };
        let (namespace, port) = (given::name(), server.port());
        let keys =
            [format!("{{{namespace}}}:whole"), format!("{{{namespace}:s:1}}:meta"), "other".to_owned()];
        for key in &keys {
            server.cli(&["SET", key, "1"]).unwrap();
        }
        let address = server.address.clone();
        let mut given = Redis { own: None, port, url: address.clone(), address, namespace };
        assert!(given.kill().is_err() && given.pause().is_err());
        drop(given);
        assert_eq!(server.cli(&["KEYS", "*"]).unwrap(), "other");
    }
}
