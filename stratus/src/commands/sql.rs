//! `stratus sql`: statements to a running server, from the command line, from stdin, or line by line.

use std::io::{self, IsTerminal, Write};

use tokio::sync::mpsc;
use tokio_postgres::NoTls;

use crate::cli::SqlArguments;
use crate::client::{Fault, Outcome, Session};
use crate::exit::{FAILED, Failure, INTERRUPTED, UNAVAILABLE};
use crate::script::{self, Statement};

const HELP: &str = "Statements end with a semicolon. \\q or Ctrl-D leaves, Ctrl-C stops a statement.\n\
    For everything else that begins with a backslash, use psql.\n";

pub(super) async fn run(arguments: SqlArguments) -> anyhow::Result<()> {
    let session = Session::to_server(&arguments.server).await?;
    match arguments.query {
        Some(query) => run_all(&session, &query).await,
        None if io::stdin().is_terminal() => converse(&session).await,
        None => run_all(&session, &io::read_to_string(io::stdin())?).await,
    }
}

/// Runs a text's statements up to the first that fails.
async fn run_all(session: &Session, text: &str) -> anyhow::Result<()> {
    for Statement { text, .. } in script::cut(text).all() {
        if let Err(fault) = run_one(session, text).await? {
            return Err(stop(&fault).into());
        }
    }
    Ok(())
}

/// Runs a statement and shows what it came to. Ctrl-C asks the server to stop it.
async fn run_one(session: &Session, text: &str) -> io::Result<Result<(), Fault>> {
    let mut running = std::pin::pin!(session.run(text));
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        Ok(()) = tokio::signal::ctrl_c() => {
            // If it cannot be asked, the statement's own end is waited for.
            _ = session.cancel_token().cancel_query(NoTls).await;
            running.await
        }
    };
    Ok(match outcome {
        Ok(Outcome::Rows(table)) => {
            write!(io::stdout().lock(), "{table}")?;
            Ok(())
        }
        Ok(Outcome::Done) => {
            writeln!(io::stdout().lock(), "{}", tag(text))?;
            Ok(())
        }
        Err(fault) => {
            let fault = fault.within(text);
            eprint!("{fault}");
            Err(fault)
        }
    })
}

fn stop(fault: &Fault) -> Failure {
    Failure::told(if fault.is_lost() { UNAVAILABLE } else { FAILED })
}

/// Reads statements from the terminal. An error ends a statement and not the conversation.
async fn converse(session: &Session) -> anyhow::Result<()> {
    println!("stratus {}, \\? for help", env!("CARGO_PKG_VERSION"));
    let mut lines = lines();
    let mut text = String::new();
    loop {
        let pending = script::cut(&text).rest.is_some();
        print!("stratus{} ", if pending { "->" } else { "=>" });
        io::stdout().flush()?;
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = tokio::signal::ctrl_c() => {
                println!();
                return Err(Failure::told(INTERRUPTED).into());
            }
        };
        let Some(line) = line else {
            println!();
            return Ok(());
        };
        match line.trim() {
            "\\q" | "quit" | "exit" if !pending => return Ok(()),
            "\\?" | "help" if !pending => {
                print!("{HELP}");
                continue;
            }
            command if command.starts_with('\\') => {
                eprintln!("{command} is not known here; \\? for help");
                continue;
            }
            _ => text.push_str(&line),
        }
        let cut = script::cut(&text);
        for Statement { text, .. } in &cut.ended {
            if let Err(fault) = run_one(session, text).await?
                && fault.is_lost()
            {
                return Err(stop(&fault).into());
            }
        }
        text = cut.rest.map(|rest| format!("{}\n", rest.text)).unwrap_or_default();
    }
}

/// The lines of stdin, read on a thread of their own: a read from a terminal cannot be given up.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        while let Ok(1..) = io::stdin().read_line(&mut line) {
            if sender.blocking_send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What a command without rows is answered with, as psql does it.
fn tag(statement: &str) -> String {
    let words: Vec<String> = statement.split_whitespace().take(6).map(str::to_uppercase).collect();
    let first = words.first().map_or("", String::as_str);
    let materialized = words.iter().any(|word| word == "MATERIALIZED");
    match first {
        "CREATE" | "DROP" if materialized => format!("{first} MATERIALIZED VIEW"),
        "CREATE" | "DROP" => format!("{first} TABLE"),
        "REFRESH" => "REFRESH MATERIALIZED VIEW".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_answered_by_name() {
        assert_eq!(tag("create  materialized view v AS SELECT 1"), "CREATE MATERIALIZED VIEW");
        assert_eq!(tag("CREATE OR REPLACE MATERIALIZED VIEW v AS"), "CREATE MATERIALIZED VIEW");
        assert_eq!(tag("drop table if exists t"), "DROP TABLE");
        assert_eq!(tag("set stratus.allow_stale = on"), "SET");
    }
}
