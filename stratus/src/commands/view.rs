//! `stratus view`: the views of a running server, as its system tables tell of them.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{ServerArguments, ViewCommand};
use crate::client::{Fault, Session, Table, quoted_name, quoted_text};
use crate::exit::{FAILED, Failure, UNAVAILABLE};

/// Between two looks at a run's progress.
const POLL: Duration = Duration::from_millis(250);

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
        "SELECT source, status, version, at, sql, created_at, next_refresh FROM stratus.views WHERE {}",
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
    let next = view.first(6).map_or_else(String::new, |next| format!("next run {next}\n"));
    write!(
        io::stdout().lock(),
        "view     {name}\nsource   {}\ncreated  {}\nstatus   {}\nanswers  from version {}, up to {}\n{next}\n{}\n\n",
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
    let refreshed = if io::stderr().is_terminal() {
        // The progress needs a session of its own: this one waits for its answer.
        let watcher = Session::to_server(server).await?;
        let bar = ProgressBar::new(0);
        let refreshed = tokio::select! {
            refreshed = session.run(&statement) => refreshed,
            never = show_progress(&watcher, name, &bar) => match never {},
        };
        bar.finish_and_clear();
        refreshed
    } else {
        session.run(&statement).await
    };
    refreshed.map_err(|fault| told(&fault.within(&statement)))?;
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

/// Shows how far the newest run of a view is, for as long as it is polled.
async fn show_progress(session: &Session, name: &str, bar: &ProgressBar) -> Infallible {
    let query = format!(
        "SELECT status, progress FROM stratus.runs WHERE view = {} ORDER BY run DESC LIMIT 1",
        quoted_text(name)
    );
    let waits = ProgressStyle::with_template("  {spinner} {msg}, {elapsed}");
    let computes =
        ProgressStyle::with_template("  {msg} {bar:24} {human_pos} of {human_len} events, {elapsed}");
    let style = |style: &Result<ProgressStyle, _>| style.as_ref().ok().cloned();
    bar.enable_steady_tick(POLL);
    loop {
        // What cannot be shown is no failure: the refresh itself tells.
        if let Ok(table) = session.rows(&query).await {
            let shown = match table.first(1).and_then(events_of) {
                Some((events, of)) => {
                    bar.set_length(of);
                    bar.set_position(events);
                    style(&computes)
                }
                None => style(&waits),
            };
            if let Some(shown) = shown {
                bar.set_style(shown.progress_chars("=> "));
            }
            bar.set_message(table.first(0).unwrap_or("asking").to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The numbers of `3 of 9 events`.
fn events_of(progress: &str) -> Option<(u64, u64)> {
    let (events, rest) = progress.split_once(" of ")?;
    Some((events.parse().ok()?, rest.strip_suffix(" events")?.parse().ok()?))
}

pub(super) async fn rows(session: &Session, query: &str) -> Result<Table, Failure> {
    session.rows(query).await.map_err(|fault| told(&fault))
}

/// Shows the error as it is shown everywhere.
fn told(fault: &Fault) -> Failure {
    eprint!("{fault}");
    Failure::told(if fault.is_lost() { UNAVAILABLE } else { FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_table() {
        assert_eq!(events_of("30 of 900 events"), Some((30, 900)));
        assert_eq!(events_of("waiting"), None);
    }
}
