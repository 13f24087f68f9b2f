//! `stratus demo`: the whole platform at work on a benchmark's events, with every count checked.

mod display;
mod generator;
mod oracle;
mod producer;
mod story;
mod watcher;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tempfile::TempDir;

use crate::exit::{CONFIGURATION, Failure};
use producer::Rate;

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArguments {
    /// How many events are sent.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) events: u64,
    /// Events per second, or "max"; without it the rate moves.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<Rate>,
    /// Stop after the check; exit with 0 only if every count is exact.
    #[arg(long)]
    pub(crate) once: bool,
    /// Where the data goes, and stays; without it a temporary folder is used, and removed.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The same seed makes the same events.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Of a hundred lines, how many are broken and have to become dead letters.
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    pub(crate) bad_percent: f64,
    /// Count one event that is not sent, to see the check fail.
    #[arg(long, hide = true)]
    pub(crate) lose_one: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Unbounded);
    }
    match text.replace('_', "").parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::Fixed(rate)),
        _ => Err("it is a number of events per second, or max".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("it is a number from 0 to 100".to_owned()),
    }
}

/// Runs the demo.
pub(crate) async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    let folder = Folder::of(&arguments)?;
    story::tell(&arguments, folder.path()).await
}

/// Where the demo's data is.
enum Folder {
    /// Removed at the end.
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn of(arguments: &DemoArguments) -> anyhow::Result<Self> {
        let Some(dir) = &arguments.data_dir else {
            let made = tempfile::Builder::new().prefix("stratus-demo-").tempdir();
            return Ok(Self::Temporary(made.context("no temporary folder can be made")?));
        };
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let dir = std::fs::canonicalize(dir)?;
        if std::fs::read_dir(&dir)?.next().is_some() {
            let message =
                format!("{} is not empty; the demo counts from nothing, give it a new folder", dir.display());
            return Err(Failure::new(CONFIGURATION, message).into());
        }
        Ok(Self::Kept(dir))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_percents() {
        assert_eq!(rate("max"), Ok(Rate::Unbounded));
        assert_eq!(rate("100_000"), Ok(Rate::Fixed(100_000.0)));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("fast").is_err() && rate("inf").is_err());
        assert_eq!(percent("1"), Ok(1.0));
        assert!(percent("101").is_err());
    }
}
