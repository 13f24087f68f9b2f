//! A running `stratus up`, or a process with one layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// How long a start may take: recovery included, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// The binary that the build of this test has made.
pub fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let built = test.parent().and_then(Path::parent).map(|dir| dir.join("stratus"));
    let built = built.filter(|path| path.exists());
    built.context("the stratus binary is not built: run tests/run.sh, or cargo build --workspace first")
}

/// A process, killed when dropped.
#[derive(Debug)]
pub struct Stratus {
    child: Child,
    /// Where psql connects; empty if the process serves no SQL.
    pub pg: String,
    /// Where HTTP listens; empty if it does not.
    pub http: String,
    log: JoinHandle<String>,
}

impl Stratus {
    /// Starts `stratus up` in a folder, on free ports, and waits until it says where it listens.
    ///
    /// # Errors
    /// If it ends, or says nothing in time; with what it printed.
    pub async fn up(folder: &Path, environment: &BTreeMap<&str, String>) -> Result<Self> {
        Self::start("up", folder, environment).await
    }

    /// Starts `stratus <command>`, for instance `speed`, in the same way.
    ///
    /// # Errors
    /// As [`Stratus::up`].
    pub async fn start(command: &str, folder: &Path, environment: &BTreeMap<&str, String>) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .arg(command)
            .current_dir(folder)
            .env("STRATUS__PG__LISTEN", "127.0.0.1:0")
            .env("STRATUS__HTTP__LISTEN", "127.0.0.1:0")
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child.stderr.take().context("no standard error")?;
        let name = command.to_owned();
        let log = tokio::spawn(async move {
            let (mut lines, mut kept) = (BufReader::new(stderr).lines(), String::new());
            while let Ok(Some(line)) = lines.next_line().await {
                if std::env::var_os("STRATUS_TEST_LOG").is_some() {
                    eprintln!("    {name}: {line}");
                }
                kept.push_str(&line);
                kept.push('\n');
            }
            kept
        });
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let (mut pg, mut http, mut ready) = (String::new(), String::new(), false);
        let banner = async {
            while !ready {
                let Some(line) = lines.next_line().await? else { break };
                if let Some(port) = line.strip_prefix("psql").and_then(|rest| port_after(rest, "-p ")) {
                    pg = format!("127.0.0.1:{port}");
                }
                if let Some(port) = line.strip_prefix("http").and_then(|rest| port_after(rest, "127.0.0.1:"))
                {
                    http = format!("127.0.0.1:{port}");
                }
                ready = line.starts_with("ready in ");
            }
            Ok::<_, anyhow::Error>(())
        };
        tokio::time::timeout(START, banner).await.context("no banner in time")??;
        // The rest of the output must not fill its pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        if ready {
            return Ok(Self { child, pg, http, log });
        }
        let status = child.wait().await?;
        bail!("stratus {command} ended with {status} before it was ready:\n{}", log.await?)
    }

    /// Its process id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal by its name, for instance STOP.
    ///
    /// # Errors
    /// If it has ended before.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().context("it has ended before")?;
        Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().await?;
        Ok(())
    }

    /// A connection to the PostgreSQL front door.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.pg).await
    }

    /// kill -9.
    ///
    /// # Errors
    /// If the process cannot be killed.
    pub async fn kill(mut self) -> Result<()> {
        self.child.start_kill()?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM, and what the process printed to its log.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn terminate(mut self) -> Result<(ExitStatus, String)> {
        self.signal("TERM").await?;
        self.wait(Duration::from_secs(30)).await
    }

    /// Waits for an end that comes by itself.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn wait(&mut self, patience: Duration) -> Result<(ExitStatus, String)> {
        let status = tokio::time::timeout(patience, self.child.wait()).await.context("it does not end")??;
        Ok((status, (&mut self.log).await?))
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

/// A connection to a PostgreSQL front door at `host:port`.
///
/// # Errors
/// If it is refused.
pub async fn connect(address: &str) -> Result<Client> {
    let (host, port) = address.rsplit_once(':').context("no port")?;
    let settings = format!("host={host} port={port} user=test dbname=stratus connect_timeout=5");
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn port_after(text: &str, mark: &str) -> Option<u16> {
    let digits: String = text.split(mark).nth(1)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
