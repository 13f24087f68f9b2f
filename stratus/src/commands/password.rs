//! `stratus password`: what the configuration keeps of a user's password instead of the password.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use console::Term;
use stratus_serving::pg::Users;
use tokio::process::Command;

use crate::exit::{FAILED, Failure, INTERRUPTED};

pub(super) async fn run() -> anyhow::Result<()> {
    let is_terminal = io::stdin().is_terminal();
    let read = tokio::task::spawn_blocking(move || if is_terminal { ask_twice() } else { one_line() });
    let password = tokio::select! {
        password = read => password??,
        Ok(()) = tokio::signal::ctrl_c() => {
            if is_terminal {
                // The terminal was told not to show what is typed.
                _ = Command::new("stty").arg("echo").status().await;
                eprintln!();
            }
            return Err(Failure::told(INTERRUPTED).into());
        }
    };
    if password.is_empty() {
        return Err(Failure::new(FAILED, "the password is empty").into());
    }
    writeln!(io::stdout().lock(), "{}", Users::verifier(&password))?;
    if is_terminal {
        eprintln!("Put it under [pg.users] of stratus.toml: name = \"SCRAM-SHA-256$...\"");
    }
    Ok(())
}

/// Asks at the terminal, which does not show what is typed.
fn ask_twice() -> anyhow::Result<String> {
    let terminal = Term::stderr();
    let ask = |what: &str| -> io::Result<String> {
        terminal.write_str(what)?;
        terminal.read_secure_line()
    };
    let password = ask("Password: ").context("the password cannot be read")?;
    if ask("Again: ").context("the password cannot be read")? != password {
        return Err(Failure::new(FAILED, "the passwords are not the same").into());
    }
    Ok(password)
}

/// The first line of stdin.
fn one_line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("the password cannot be read from stdin")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
