//! A task's connection. One that failed is replaced, never used again: an answer to an earlier question may still come
//! over it.

use std::time::Duration;

use redis::{Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::time::Instant;

use super::{
    error::{RedisBoltError, is_of_the_connection},
    settings::RedisSettings,
};

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    settings: RedisSettings,
    open: Option<MultiplexedConnection>,
    /// Failures since the server has answered last.
    failures: u32,
    /// When to try again at the earliest.
    not_before: Option<Instant>,
}

impl Connection {
    /// Not connected yet.
    pub(super) fn new(settings: RedisSettings) -> Self {
        Self { settings, open: None, failures: 0, not_before: None }
    }

    pub(super) fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// Connects, if it is not connected; not before the pause after the last failure is over.
    pub(super) async fn open(&mut self) -> Result<(), RedisBoltError> {
        self.opened().await.map(|_| ())
    }

    async fn opened(&mut self) -> Result<MultiplexedConnection, RedisBoltError> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        if let Some(time) = self.not_before.take() {
            tokio::time::sleep_until(time).await;
        }
        match connect(&self.settings).await {
            Ok(connection) => {
                self.open = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                self.failed();
                Err(RedisBoltError::connect(self.settings.server(), self.settings.timeout(), &error))
            }
        }
    }

    fn failed(&mut self) {
        self.open = None;
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
    }

    /// Runs commands once and answers what the server said to each.
    pub(super) async fn run(
        &mut self,
        commands: &Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, RedisBoltError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.opened().await?;
        match commands.query_async::<Vec<RedisResult<Value>>>(&mut connection).await {
            Ok(answers) => {
                let refusals = || answers.iter().filter_map(|answer| answer.as_ref().err());
                if refusals().any(is_of_the_connection) {
                    self.failed();
                } else {
                    self.failures = 0;
                }
                Ok(answers)
            }
            Err(error) => {
                self.failed();
                Err(RedisBoltError::unanswered(
                    self.settings.server(),
                    self.settings.timeout(),
                    commands.len(),
                    &error,
                ))
            }
        }
    }
}

/// A connection to a server that is ready to be asked. That it was made says neither that the server wants no password
/// nor that it has read its data.
async fn connect(settings: &RedisSettings) -> Result<MultiplexedConnection, RedisError> {
    let config = settings.connection_config();
    let mut connection = settings.client().get_multiplexed_async_connection_with_config(&config).await?;
    match redis::cmd("PING").exec_async(&mut connection).await {
        // A user that may not PING may do what it was made for.
        Err(error) if error.code() == Some("NOPERM") => Ok(connection),
        pinged => pinged.map(|()| connection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_further_attempt_waits_twice_as_long() {
        // Nothing listens there: it was bound, and let go of.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = RedisSettings::new(&format!("redis://127.0.0.1:{port}")).unwrap();
        let mut connection = Connection::new(settings);
        assert_eq!(connection.not_before, None, "the first attempt does not wait");
        let mut waits = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            assert!(matches!(connection.open().await, Err(RedisBoltError::Connect { .. })));
            waits.push(began.elapsed());
        }
        assert!(waits[1] >= FIRST_PAUSE && waits[2] >= 2 * FIRST_PAUSE, "{waits:?}");
    }
}
