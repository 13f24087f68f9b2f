//! Whether everything that this configuration names is there and fit, and what to do about what is not.

mod checks;
mod disk;
mod finding;

use std::io::{self, Write};

use crate::cli::DoctorArguments;
use crate::config::{Config, environment};
use crate::exit::{Failure, UNAVAILABLE};
use finding::{Finding, Verdict};

/// Examines everything and tells; an error if there is a problem.
pub(crate) async fn run(arguments: DoctorArguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.config.as_deref(), environment())?;
    let findings = checks::all(&config).await;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
    }
    match findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count() {
        0 => Ok(()),
        1 => Err(Failure::new(UNAVAILABLE, "there is a problem").into()),
        count => Err(Failure::new(UNAVAILABLE, format!("there are {count} problems")).into()),
    }
}

/// What was found about one thing.
fn told(findings: &mut Vec<Finding>, subject: impl Into<String>, what: Result<String, finding::Trouble>) {
    findings.push(Finding::of(subject.into(), what));
}
