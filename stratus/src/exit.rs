//! Exit codes, and the last line on stderr. The codes are those of `sysexits.h` where it has one.

use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;

/// It did not work.
pub(crate) const FAILED: u8 = 1;
/// Something that is needed cannot be reached.
pub(crate) const UNAVAILABLE: u8 = 69;
/// A panic.
pub(crate) const INTERNAL: u8 = 70;
/// A later try may work: something is in use.
pub(crate) const TEMPORARY: u8 = 75;
/// The configuration, or a definition in SQL, is wrong.
pub(crate) const CONFIGURATION: u8 = 78;
/// Ctrl-C before the end.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: u8,
    /// Empty if the user has been told already.
    message: String,
}

impl Failure {
    /// An error to tell.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error that the user has been told.
    pub(crate) const fn told(code: u8) -> Self {
        Self { code, message: String::new() }
    }
}

/// Tells the error, unless that is done, and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let told = error.downcast_ref::<Failure>().is_some_and(|failure| failure.message.is_empty());
    // Whoever reads our output has seen enough.
    let pipe = is_io(error, io::ErrorKind::BrokenPipe);
    if !told && !pipe {
        eprintln!("stratus: {error:#}");
    }
    if pipe { ExitCode::SUCCESS } else { ExitCode::from(code_of(error)) }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        return failure.code;
    }
    if error.chain().any(|cause| cause.is::<ConfigError>()) {
        return CONFIGURATION;
    }
    if is_io(error, io::ErrorKind::AddrInUse) {
        return TEMPORARY;
    }
    FAILED
}

fn is_io(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| error.kind() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn the_code_is_found_below_a_context() {
        let config = ConfigError { place: "f:1".into(), problem: "no".into(), hint: None };
        assert_eq!(code_of(&anyhow::Error::from(config).context("while starting")), CONFIGURATION);
        let failure: anyhow::Result<()> = Err(Failure::new(UNAVAILABLE, "gone").into());
        assert_eq!(code_of(&failure.context("asking").err().unwrap_or_else(|| anyhow!("none"))), UNAVAILABLE);
        let busy = io::Error::from(io::ErrorKind::AddrInUse);
        assert_eq!(code_of(&anyhow::Error::from(busy).context("cannot listen")), TEMPORARY);
        assert_eq!(code_of(&anyhow!("other")), FAILED);
    }
}
