//! `stratus topology`: the topologies of a running server, as its system tables tell of them.

use std::io::{self, Write};

use super::view::rows;
use crate::cli::{ServerArguments, TopologyCommand};
use crate::client::{Session, quoted_text};
use crate::exit::{FAILED, Failure};

pub(super) async fn run(command: TopologyCommand) -> anyhow::Result<()> {
    match command {
        TopologyCommand::List { server } => list(&server).await,
        TopologyCommand::Describe { name, dot, server } => describe(&server, &name, dot).await,
    }
}

async fn list(server: &ServerArguments) -> anyhow::Result<()> {
    let session = Session::to_server(server).await?;
    let query = "SELECT name, status, components, executors, tasks, pending, acked, failed, panics, errors, failure \
                 FROM stratus.topologies ORDER BY name";
    let topologies = rows(&session, query).await?;
    write!(io::stdout().lock(), "{topologies}")?;
    Ok(())
}

async fn describe(server: &ServerArguments, name: &str, dot: bool) -> anyhow::Result<()> {
    let session = Session::to_server(server).await?;
    let query = format!("SELECT dot FROM stratus.topologies WHERE name = {}", quoted_text(name));
    let found = rows(&session, &query).await?;
    let Some(drawing) = found.first(0) else {
        let message = format!(
            "no topology \"{name}\" runs in this process; `stratus topology list` lists those that do. The views of \
             a source run in the process of its speed layer"
        );
        return Err(Failure::new(FAILED, message).into());
    };
    if dot {
        write!(io::stdout().lock(), "{drawing}")?;
        return Ok(());
    }
    let of_topology = format!("topology = {}", quoted_text(name));
    let components = format!(
        "SELECT component, kind, executors, tasks, pending, queued_rows, most_queued_rows, queue_capacity, panics, \
         errors, last_error FROM stratus.topology_components WHERE {of_topology} ORDER BY component"
    );
    let streams = format!(
        "SELECT component, direction, stream, grouping, tuples, transferred, acked, failed, p50_us, p99_us \
         FROM stratus.topology_streams WHERE {of_topology} ORDER BY component, direction, stream"
    );
    for (title, query) in [("Components", components), ("Streams", streams)] {
        let table = rows(&session, &query).await?;
        writeln!(io::stdout().lock(), "{title}\n{table}")?;
    }
    Ok(())
}
