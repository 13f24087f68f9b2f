//! `stratus up`: every layer in this process.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::cli::UpArguments;
use crate::client::Session;
use crate::config::{Config, environment};
use crate::exit::{CONFIGURATION, FAILED, Failure};
use crate::node::Node;
use crate::script::{self, Statement};
use crate::signals::Signals;

/// The buckets of durations, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Between two tidyings of the metrics' samples.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) async fn run(arguments: UpArguments) -> anyhow::Result<()> {
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
    let node = Node::start(&config, record_metrics()?).await?;
    let outcome = async {
        write_banner(&config, &node)?;
        if let Some((path, text)) = &script {
            run_script(&node, path, text).await?;
        }
        Err(node.failed().await)
    };
    let outcome: anyhow::Result<()> = tokio::select! {
        outcome = outcome => outcome,
        () = signals.asked() => Ok(()),
    };
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
fn write_banner(config: &Config, node: &Node) -> io::Result<()> {
    let state = match config.state.kind {
        crate::config::StateKind::Memory => "in memory".to_owned(),
        crate::config::StateKind::Redb => shown(&config.state_path()),
    };
    let logs = shown(&config.logs_dir());
    let lake = shown(Path::new(&config.lake_url()));
    let mut out = io::stdout().lock();
    writeln!(out, "stratus {}  embedded: log {logs}, state {state}, lake {lake}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "psql    {}", psql_line(node))?;
    writeln!(out, "http    http://{}   (POST /v1/sources/<name>/events)", node.http_address())?;
    writeln!(out, "ready in {} ms", node.took().as_millis())?;
    out.flush()
}

/// The command that connects psql.
pub(crate) fn psql_line(node: &Node) -> String {
    let address = node.pg_address();
    format!("psql -h {} -p {} -U stratus stratus", address.ip(), address.port())
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
    let session = Session::at(node.pg_address()).await?;
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
