//! What the user of the connection may do, by the server's own word: `ACL DRYRUN` carries nothing out.

use redis::{Cmd, Value};
use stratus_seam::store::StoreError;

use super::RedisStore;
use super::connections::Lane;
use super::layout::text;
use super::trouble::Trouble;

/// Every command that the store sends, or that its functions run, beside those that opening it has shown: the words
/// before the key, and the words after it.
const COMMANDS: [(&str, &str); 18] = [
    ("FCALL f 1", ""),
    ("EXISTS", ""),
    ("UNLINK", ""),
    ("HSET", "f v"),
    ("HGET", "f"),
    ("HMGET", "f"),
    ("HDEL", "f"),
    ("HLEN", ""),
    ("HKEYS", ""),
    ("HVALS", ""),
    ("HGETALL", ""),
    ("HEXISTS", "f"),
    ("HINCRBY", "f 1"),
    ("HSCAN", "0"),
    ("GET", ""),
    ("SET", "v"),
    ("SCAN 0 MATCH", ""),
    ("FUNCTION LOAD REPLACE", ""),
];

/// What the server says about the rights of the connection's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// Nothing that the store does is forbidden.
    Enough,
    /// What is, in the server's words, each once.
    Missing(Vec<String>),
    /// The user may not ask, or the server does not know the question: why.
    Untold(String),
}

impl RedisStore {
    /// Asks the server whether the user may do all that the store does, with keys of its namespace.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn rights(&self) -> Result<Rights, StoreError> {
        self.ask_for_rights()
            .await
            .map_err(|trouble| trouble.told(&self.0.what("ask for the rights of the user")))
    }

    async fn ask_for_rights(&self) -> Result<Rights, Trouble> {
        let mut missing: Vec<String> = Vec::new();
        let user = match self.acl(&["WHOAMI"]).await? {
            Ok(user) => text(&user)?,
            Err(why) => return Ok(Rights::Untold(why)),
        };
        let namespace = &self.0.namespace;
        for key in [format!("{{{namespace}}}:whole"), format!("{{{namespace}:source:0}}:meta")] {
            for (before, after) in COMMANDS {
                let words = ["DRYRUN", &user].into_iter().chain(before.split(' '));
                let words: Vec<&str> =
                    words.chain([key.as_str()]).chain(after.split_terminator(' ')).collect();
                let said = match self.acl(&words).await? {
                    Ok(said) => text(&said)?,
                    Err(why) => return Ok(Rights::Untold(why)),
                };
                if said != "OK" && !missing.contains(&said) {
                    missing.push(said);
                }
            }
        }
        Ok(if missing.is_empty() { Rights::Enough } else { Rights::Missing(missing) })
    }

    /// The answer to an ACL command, or why the server refuses it.
    async fn acl(&self, words: &[&str]) -> Result<Result<Value, String>, Trouble> {
        let mut command = Cmd::new();
        command.arg("ACL");
        for word in words {
            command.arg(word);
        }
        match self.0.connections.run(Lane::Small, &command).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(trouble) if trouble.is_answer() => match trouble {
                Trouble::Redis(error) => {
                    Ok(Err(error.detail().map_or_else(|| error.to_string(), str::to_owned)))
                }
                other => Err(other),
            },
            Err(trouble) => Err(trouble),
        }
    }
}
