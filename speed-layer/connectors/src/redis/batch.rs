//! The commands for a batch of tuples.

use redis::{Cmd, Pipeline};
use stratus_topology::{TaskError, Tuple};

use super::held::Failures;

/// The commands for the tuples of a batch, and the tuples that there are none for.
pub(super) struct Batch {
    pub(super) commands: Pipeline,
    /// Rows, each with the place of its command. Several rows may share one.
    pub(super) places: Vec<(u32, usize)>,
    pub(super) failures: Failures,
}

impl Batch {
    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut commands = Pipeline::with_capacity(rows);
        // Each command has its own answer, which may be a refusal.
        commands.ignore_errors();
        Self { commands, places: Vec::with_capacity(rows), failures: Failures::new() }
    }

    /// Adds the command for one tuple, or the mapper's error.
    pub(super) fn add(&mut self, tuple: Tuple<'_>, command: Result<Cmd, TaskError>) {
        match command {
            Ok(command) => {
                self.places.push((tuple.row() as u32, self.commands.len()));
                self.commands.add_command(command);
            }
            Err(error) => self.refuse(tuple, &error),
        }
    }

    /// A tuple that no command can be made of.
    pub(super) fn refuse(&mut self, tuple: Tuple<'_>, error: &TaskError) {
        self.failures.insert(tuple.row() as u32, error.to_string().into());
    }
}
