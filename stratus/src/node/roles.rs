//! Which layers a process runs.

use crate::config::{Config, StateKind};
use crate::exit::{CONFIGURATION, Failure};

/// The layers of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) ingest: bool,
    pub(crate) speed: bool,
    pub(crate) batch: bool,
    pub(crate) serve: bool,
}

impl Roles {
    const NONE: Self = Self { ingest: false, speed: false, batch: false, serve: false };
    /// Every layer in one process.
    pub(crate) const ALL: Self = Self { ingest: true, speed: true, batch: true, serve: true };
    pub(crate) const INGEST: Self = Self { ingest: true, ..Self::NONE };
    pub(crate) const SPEED: Self = Self { speed: true, ..Self::NONE };
    pub(crate) const BATCH: Self = Self { batch: true, ..Self::NONE };
    pub(crate) const SERVE: Self = Self { serve: true, ..Self::NONE };

    /// What the process calls itself.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ALL => "every layer",
            Self::INGEST => "ingest",
            Self::SPEED => "speed",
            Self::BATCH => "batch",
            _ => "serve",
        }
    }

    /// Whether the process may run with this configuration: layers in separate processes need a state store that
    /// they can share.
    pub(crate) fn check(self, config: &Config) -> Result<(), Failure> {
        let store = match config.state.kind {
            StateKind::Redb => "redb, a file that one process holds",
            StateKind::Memory => "the memory of one process",
            StateKind::Redis => return Ok(()),
        };
        if self == Self::ALL {
            return Ok(());
        }
        Err(Failure::new(
            CONFIGURATION,
            format!(
                "`stratus {}` runs one layer, and the state store is {store}, so the layers could not meet in it. \
                 Set state.kind = \"redis\" with state.url, or run every layer in one process with `stratus up`",
                self.name()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn layers_apart_need_a_store_that_is_shared() {
        let mut config = Config::default();
        assert!(Roles::ALL.check(&config).is_ok());
        for roles in [Roles::INGEST, Roles::SPEED, Roles::BATCH, Roles::SERVE] {
            let told = format!("{:#}", anyhow::Error::from(roles.check(&config).unwrap_err()));
            assert!(told.contains(roles.name()) && told.contains("redis"), "{told}");
        }
        config.state.kind = StateKind::Redis;
        assert!(Roles::SPEED.check(&config).is_ok());
    }
}
