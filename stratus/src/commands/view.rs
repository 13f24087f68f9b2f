//! `stratus view`: the views of a running server, as its system tables tell of them.

use std::io::{self, Write};

use crate::cli::{ServerArguments, ViewCommand};
use crate::client::{Fault, Session, Table, quoted_name, quoted_text};
use crate::exit::{FAILED, Failure, UNAVAILABLE};

pub(super) async fn run(command: ViewCommand) -> anyhow::Result<()> {
    match command {
        ViewCommand::List { server } => list(&server).await,
        ViewCommand::Describe { name, server } => describe(&server, &name).await,
        ViewCommand::Refresh { name, server } => refresh(&server, &name).await,
    }
}

async fn list(server: &ServerArguments) -> anyhow::Result<()> {
    let session = Session::to_server(server).await?;
    let query = "SELECT name, source, status, version, at FROM stratus.views ORDER BY name";
    let views = rows(&session, query).await?;
    write!(io::stdout().lock(), "{views}")?;
    Ok(())
}

async fn describe(server: &ServerArguments, name: &str) -> anyhow::Result<()> {
    let session = Session::to_server(server).await?;
    let is_named = |column: &str| format!("{column} = {}", quoted_text(name));
    let query = format!(
        "SELECT source, status, version, at, sql, created_at FROM stratus.views WHERE {}",
        is_named("name")
    );
    let view = rows(&session, &query).await?;
    if view.rows().is_empty() {
        return Err(Failure::new(
            FAILED,
            format!("there is no view \"{name}\"; `stratus view list` lists those there are"),
        )
        .into());
    }
    let field = |column: usize| view.first(column).unwrap_or("-");
    write!(
        io::stdout().lock(),
        "view     {name}\nsource   {}\ncreated  {}\nstatus   {}\nanswers  from version {}, up to {}\n\n{}\n\n",
        field(0),
        field(5),
        field(1),
        field(2),
        field(3),
        field(4).trim()
    )?;
    let columns = session.columns(&format!("SELECT * FROM {}", quoted_name(name))).await;
    let columns = columns.map_err(|fault| told(&fault))?;
    writeln!(io::stdout().lock(), "Columns\n{columns}")?;
    let of_view = is_named("view");
    for (title, query) in [
        (
            "Aggregates",
            format!("SELECT sql, class FROM stratus.aggregates WHERE {of_view} ORDER BY position"),
        ),
        (
            "Versions",
            format!(
                "SELECT version, kind, events, groups, failed_rows, bytes, took_ms, published_at, cut \
                 FROM stratus.versions WHERE {of_view} ORDER BY version DESC"
            ),
        ),
        (
            "Speed state",
            format!(
                "SELECT epoch, \"from\", \"to\", failed_rows FROM stratus.cuts WHERE {of_view} ORDER BY epoch"
            ),
        ),
    ] {
        let table = rows(&session, &query).await?;
        writeln!(io::stdout().lock(), "{title}\n{table}")?;
    }
    Ok(())
}

async fn refresh(server: &ServerArguments, name: &str) -> anyhow::Result<()> {
    let session = Session::to_server(server).await?;
    let statement = format!("REFRESH MATERIALIZED VIEW {}", quoted_name(name));
    session.run(&statement).await.map_err(|fault| told(&fault.within(&statement)))?;
    let newest = format!(
        "SELECT version, events, groups, took_ms, failed_rows FROM stratus.versions WHERE view = {} ORDER BY version DESC LIMIT 1",
        quoted_text(name)
    );
    let version = rows(&session, &newest).await?;
    let field = |column: usize| version.first(column).unwrap_or("?");
    writeln!(
        io::stdout().lock(),
        "version {}: {} events in {} groups, {} rows left out, {} ms",
        field(0),
        field(1),
        field(2),
        field(4),
        field(3)
    )?;
    Ok(())
}

async fn rows(session: &Session, query: &str) -> Result<Table, Failure> {
    session.rows(query).await.map_err(|fault| told(&fault))
}

/// Shows the error as it is shown everywhere.
fn told(fault: &Fault) -> Failure {
    eprint!("{fault}");
    Failure::told(if fault.is_lost() { UNAVAILABLE } else { FAILED })
}
