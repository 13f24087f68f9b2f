//! What all bolts do: ask the server, ack what it answered and hold what failed.

use std::{sync::Arc, time::Duration};

use redis::Value;
use stratus_topology::{ComponentConfig, OutputCollector, TaskError, Tuples};

use super::{
    batch::Batch,
    connection::Connection,
    error::RedisBoltError,
    held::{Failures, Held},
    settings::RedisSettings,
};

/// How long failed tuples are held at most.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Desk {
    connection: Connection,
    held: Held,
}

/// A desk at the same server, with nothing under way.
impl Clone for Desk {
    fn clone(&self) -> Self {
        Self::new(self.connection.settings().clone())
    }
}

impl Desk {
    pub(super) fn new(settings: RedisSettings) -> Self {
        Self { connection: Connection::new(settings), held: Held::default() }
    }

    pub(super) fn settings(&self) -> &RedisSettings {
        self.connection.settings()
    }

    pub(super) fn configuration() -> ComponentConfig {
        ComponentConfig { tick: Some(TICK), ..ComponentConfig::default() }
    }

    pub(super) async fn open(&mut self) -> Result<(), RedisBoltError> {
        self.connection.open().await
    }

    /// Asks the server. Answers what it said to each tuple with a command, by row; the others, and those whose command
    /// was refused or not answered, are in the failures.
    pub(super) async fn ask(&mut self, batch: Batch) -> (Vec<(u32, Arc<Value>)>, Failures) {
        let Batch { commands, places, mut failures } = batch;
        let answers: Vec<Result<Arc<Value>, Arc<str>>> = match self.connection.run(&commands).await {
            Ok(answers) => {
                let told = commands.cmd_iter().zip(answers).map(|(command, answer)| {
                    let refused = |error| RedisBoltError::refused(self.settings().server(), command, &error);
                    answer.map(Arc::new).map_err(|error| Arc::from(refused(error).to_string()))
                });
                told.collect()
            }
            Err(error) => vec![Err(Arc::from(error.to_string())); commands.len()],
        };
        let mut answered = Vec::with_capacity(places.len());
        for (row, command) in places {
            match answers.get(command) {
                Some(Ok(value)) => answered.push((row, Arc::clone(value))),
                Some(Err(why)) => drop(failures.insert(row, Arc::clone(why))),
                None => drop(failures.insert(row, Arc::from("the Redis server gave too few answers"))),
            }
        }
        (answered, failures)
    }

    /// Acks the tuples of a batch, but for those that failed.
    pub(super) fn settle(
        &mut self,
        input: &Tuples,
        failures: Failures,
        out: &mut OutputCollector,
    ) -> Result<(), TaskError> {
        if failures.is_empty() {
            out.ack(input);
            return Ok(());
        }
        let done: Vec<u32> = (0..input.len() as u32).filter(|row| !failures.contains_key(row)).collect();
        out.ack_rows(input, &done);
        Ok(self.held.add(input, failures)?)
    }

    /// Fails what is held. The error, if something was, is for the log and the metrics.
    pub(super) fn tick(&mut self, tick: &Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        out.ack(tick);
        self.held.release(out)
    }
}
