//! A connection that is made when it is needed. One that failed is never used again: an answer to an earlier question
//! may still come over it.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, RedisError, RedisResult, aio::MultiplexedConnection,
};

use super::{Keys, address::Address, script::Code};

/// How long a connection may take to be made, at most.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    address: Arc<Address>,
    open: Option<MultiplexedConnection>,
}

impl Connection {
    /// Nothing is connected yet.
    pub(super) fn to(address: &Arc<Address>) -> Self {
        Self { address: Arc::clone(address), open: None }
    }

    async fn connected(&self) -> RedisResult<MultiplexedConnection> {
        let patience = self.address.patience;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT.min(patience)))
            .set_response_timeout(Some(patience));
        let made = self.address.client.get_multiplexed_async_connection_with_config(&config);
        // A server that accepts connections and says nothing.
        tokio::time::timeout(patience, made).await.unwrap_or_else(|_| {
            Err(std::io::Error::other("no connection in time: the server does not answer").into())
        })
    }

    /// Runs one command once. It may have taken effect although an error is answered, or yet take effect.
    pub(super) async fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        // Taken out: who goes away in the midst of a command, or gets no answer, leaves no connection behind.
        let mut connection = match self.open.take() {
            Some(open) => open,
            None => self.connected().await?,
        };
        let answer = command.query_async::<T>(&mut connection).await;
        if answer.as_ref().err().is_none_or(is_answer) {
            self.open = Some(connection);
        }
        answer
    }

    /// Calls a script on the keys of a state.
    pub(super) async fn call<T: FromRedisValue>(
        &mut self,
        script: &Code,
        keys: &Keys,
        args: &[&str],
    ) -> RedisResult<T> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script.hash).arg(2).arg(&keys.meta).arg(&keys.values).arg(args);
        match self.run(&command).await {
            // The server is new, or has started again. Nothing was run.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                self.run::<String>(redis::cmd("SCRIPT").arg("LOAD").arg(script.text)).await?;
                self.run(&command).await
            }
            answer => answer,
        }
    }
}

/// Whether the server itself said so, so that the connection is in order.
fn is_answer(error: &RedisError) -> bool {
    error.code().is_some_and(|code| !matches!(code, "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
}
