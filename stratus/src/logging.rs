//! The log: one line per event that matters, on stderr.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::cli::{Arguments, Command, LogFormat};
use crate::exit::{CONFIGURATION, Failure};

/// The variable with the filter.
const VARIABLE: &str = "STRATUS_LOG";

/// Starts the log. Without `STRATUS_LOG` the server tells what matters; every other command only what went wrong.
pub(crate) fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let usual = match arguments.command {
        Command::Up(_) | Command::Serve(_) | Command::Ingest(_) | Command::Speed(_) | Command::Batch(_) => {
            "warn,stratus=info"
        }
        Command::Demo(_) => "error",
        _ => "error,stratus=warn",
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) if !filter.trim().is_empty() => EnvFilter::try_new(&filter).map_err(|error| {
            Failure::new(CONFIGURATION, format!("{VARIABLE}: \"{filter}\" is not a filter: {error}"))
        })?,
        _ => EnvFilter::try_new(usual).context("the default filter of the log")?,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match arguments.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}
