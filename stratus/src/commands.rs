//! The commands.

mod password;
mod sql;
mod topology;
mod up;
mod view;

pub(crate) use up::{psql_line, record_metrics};

use crate::cli::Command;
use crate::node::Roles;
use crate::{demo, doctor};

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(arguments) => up::run(arguments, Roles::ALL).await,
        Command::Serve(arguments) => up::run(arguments, Roles::SERVE).await,
        Command::Ingest(arguments) => up::layer(arguments, Roles::INGEST).await,
        Command::Speed(arguments) => up::layer(arguments, Roles::SPEED).await,
        Command::Batch(arguments) => up::layer(arguments, Roles::BATCH).await,
        Command::Sql(arguments) => sql::run(arguments).await,
        Command::View(command) => view::run(command).await,
        Command::Topology(command) => topology::run(command).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Password => password::run().await,
        Command::Demo(arguments) => demo::run(arguments).await,
    }
}
