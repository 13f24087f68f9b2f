//! The commands.

mod sql;
mod up;
mod view;

pub(crate) use up::{psql_line, record_metrics};

use crate::cli::Command;
use crate::demo;

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Sql(arguments) => sql::run(arguments).await,
        Command::View(command) => view::run(command).await,
        Command::Demo(arguments) => demo::run(arguments).await,
    }
}
