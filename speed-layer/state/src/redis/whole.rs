//! Keeps a torn file from coming back to life.
//!
//! Every call is written to the append-only file as one transaction. A server that finds the last one cut off in the
//! middle (`aof-load-truncated yes`, the default) does not apply it, but Redis 7.0 leaves the part that is there in
//! the file, with its `MULTI` still open, and writes on behind it. At the *second* restart the next `EXEC` applies
//! that part after all: half of a commit, which nothing in the records tells. So the first connection to a server
//! process that writes such a file lets it write the file anew, before anything else: what is not in memory is gone
//! from it then. A key remembers for which process that was done.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::layout::{optional, text};
use super::trouble::{Trouble, is_forbidden};

/// What is to be done on a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// The server's process has not written its file anew.
    Rewrite,
}

fn decide(info: &str, done_for: Option<&str>) -> (Need, Option<String>) {
    let of = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
    };
    let run = of("run_id");
    let writes = of("aof_enabled").as_deref() == Some("1") && of("role").as_deref() == Some("master");
    let need = if writes && run.as_deref() != done_for { Need::Rewrite } else { Need::Nothing };
    (need, run)
}

/// Sees to it that the file of this connection's server has no torn transaction in it.
pub(super) async fn ensure(connection: &mut MultiplexedConnection, namespace: &str) -> Result<(), Trouble> {
    let key = format!("{{{namespace}}}:whole");
    let info = text(&redis::cmd("INFO").query_async::<Value>(connection).await?)?;
    let done_for = optional(&redis::cmd("GET").arg(&key).query_async::<Value>(connection).await?)?;
    let (Need::Rewrite, Some(run)) = decide(&info, done_for.as_deref()) else { return Ok(()) };
    match redis::cmd("BGREWRITEAOF").query_async::<Value>(connection).await {
        Ok(answer) if text(&answer)?.contains("scheduled") => {
            // It goes on writing the old file until then.
            return Err(later().into());
        }
        Ok(_) => {}
        // Begun by this process, so behind whatever it read at its start.
        Err(error) if error.detail().is_some_and(|said| said.contains("in progress")) => {}
        Err(error) if is_forbidden(&error) => {
            tracing::warn!(
                "the server may not be asked to rewrite its append-only file (BGREWRITEAOF); set aof-load-truncated no, see docs/redis.md"
            );
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    redis::cmd("SET").arg(&key).arg(run).query_async::<Value>(connection).await?;
    Ok(())
}

fn later() -> RedisError {
    std::io::Error::other("the server is writing a snapshot, and its append-only file after it; try again")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_that_writes_a_file_rewrites_it_once() {
        let info =
            |aof: u8, role: &str| format!("# Server\r\nrun_id:abc\r\naof_enabled:{aof}\r\nrole:{role}\r\n");
        let need = |info: &str, done: Option<&str>| decide(info, done).0;
        assert_eq!(need(&info(1, "master"), None), Need::Rewrite);
        assert_eq!(need(&info(1, "master"), Some("before")), Need::Rewrite);
        assert_eq!(need(&info(1, "master"), Some("abc")), Need::Nothing);
        assert_eq!(need(&info(0, "master"), None), Need::Nothing);
        assert_eq!(need(&info(1, "slave"), None), Need::Nothing);
    }
}
