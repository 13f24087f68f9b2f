//! `stratus up`: every layer in this process; `stratus ingest|speed|batch|serve`: one.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::cli::{LayerArguments, UpArguments};
use crate::client::Session;
use crate::config::{Config, StateKind, environment};
use crate::exit::{CONFIGURATION, FAILED, Failure};
use crate::node::{Node, Roles};
use crate::script::{self, Statement};
use crate::signals::Signals;

/// The buckets of durations, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Between two tidyings of the metrics' samples.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs layers with the front doors, and a script of statements once they accept.
pub(super) async fn run(arguments: UpArguments, roles: Roles) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let config = Config::load(arguments.config.as_deref(), environment())?;
    let script = match &arguments.sql {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let why =
                |error| Failure::new(CONFIGURATION, format!("{} cannot be read: {error}", path.display()));
            Some((path, text.map_err(why)?))
        }
        None => None,
    };
    let node = Node::start(&config, roles, Some(config.http.listen), record_metrics()?).await?;
    let outcome = async {
        write_banner(&config, roles, &node)?;
        if let Some((path, text)) = &script {
            run_script(&node, path, text).await?;
        }
        Err(node.failed().await)
    };
    let outcome: anyhow::Result<()> = tokio::select! {
        outcome = outcome => outcome,
        () = signals.asked() => Ok(()),
    };
    end(node, outcome).await
}

/// Runs one layer that has no SQL front door.
pub(super) async fn layer(arguments: LayerArguments, roles: Roles) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let config = Config::load(arguments.config.as_deref(), environment())?;
    if let Some(address) = arguments.http.filter(|address| !address.ip().is_loopback()) {
        let message = format!(
            "--http {address} can be reached from other machines, and HTTP knows no users; use 127.0.0.1:{}",
            address.port()
        );
        return Err(Failure::new(CONFIGURATION, message).into());
    }
    let node = Node::start(&config, roles, arguments.http, record_metrics()?).await?;
    write_banner(&config, roles, &node)?;
    let outcome = tokio::select! {
        error = node.failed() => Err(error),
        () = signals.asked() => Ok(()),
    };
    end(node, outcome).await
}

async fn end(node: Node, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    if outcome.is_ok() {
        tracing::info!("asked to stop: draining");
    }
    let stopped = node.stop().await;
    outcome.and(stopped)
}

/// Installs the recorder that every layer's metrics go to.
pub(crate) fn record_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let handle =
        builder.and_then(PrometheusBuilder::install_recorder).context("the metrics cannot be recorded")?;
    metrics::gauge!("stratus_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let tidied = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            tidied.run_upkeep();
        }
    });
    Ok(handle)
}

/// Where everything is, for people and for programs: the ports are the real ones.
fn write_banner(config: &Config, roles: Roles, node: &Node) -> io::Result<()> {
    let state = match config.state.kind {
        StateKind::Memory => "in memory".to_owned(),
        StateKind::Redb => shown(&config.state_path()),
        StateKind::Redis => config.state.shown_url(),
    };
    let log = match &config.kafka.brokers {
        Some(brokers) => format!("{} and kafka {brokers}", shown(&config.logs_dir())),
        None => shown(&config.logs_dir()),
    };
    let lake = shown(Path::new(&config.lake_url()));
    let what = match roles {
        Roles::ALL if config.state.kind != StateKind::Redis && config.kafka.brokers.is_none() => "embedded",
        roles => roles.name(),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "stratus {}  {what}: log {log}, state {state}, lake {lake}", env!("CARGO_PKG_VERSION"))?;
    if node.pg_address().is_some() {
        writeln!(out, "psql    {}", psql_line(node))?;
    }
    if let Some(http) = node.http_address() {
        let events = if roles.serve { "   (POST /v1/sources/<name>/events)" } else { "" };
        writeln!(out, "http    http://{http}{events}")?;
    }
    writeln!(out, "ready in {} ms", node.took().as_millis())?;
    out.flush()
}

/// The command that connects psql.
pub(crate) fn psql_line(node: &Node) -> String {
    match node.pg_address() {
        Some(address) => format!("psql -h {} -p {} -U stratus stratus", address.ip(), address.port()),
        None => "this process serves no SQL".to_owned(),
    }
}

/// A path below the current folder begins with `./`, so that it reads as one.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if path.is_absolute() || text.starts_with('.') || text.contains("://") {
        text
    } else {
        format!("./{text}")
    }
}

/// Runs a file's statements over the server's own front door, up to the first that fails.
async fn run_script(node: &Node, path: &Path, text: &str) -> anyhow::Result<()> {
    let Some(address) = node.pg_address() else { return Ok(()) };
    let session = Session::to_itself(address, node.login()).await?;
    let statements = script::cut(text).all();
    let count = statements.len();
    for Statement { text, line } in statements {
        let Err(fault) = session.run(text).await else { continue };
        let fault = fault.within(text);
        // What was declared wrongly is for the author of the file, everything else for the operator.
        let code = if matches!(fault.class(), "0A" | "22" | "42") { CONFIGURATION } else { FAILED };
        let message =
            format!("{}:{}: {}", path.display(), line + fault.lines_before(), fault.to_string().trim_end());
        return Err(Failure::new(code, message).into());
    }
    tracing::info!(statements = count, "{} has been carried out", path.display());
    Ok(())
}
