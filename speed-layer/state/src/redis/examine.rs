//! What a server says of itself, and whether that will do.

use std::collections::BTreeMap;

use redis::{Cmd, Value};
use stratus_seam::store::StoreError;

use super::RedisStore;
use super::connections::Lane;
use super::layout::{array, other_shape, text};
use super::trouble::{Trouble, is_forbidden};

/// What a server says of itself. None where it may not be asked: managed services and careful users forbid CONFIG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `redis 7.0.15` or `valkey 8.1.0`.
    pub version: String,
    /// Major and minor version of Redis that it is compatible with.
    pub compatible: (u32, u32),
    /// `master` or `slave`.
    pub role: String,
    /// Whether it is part of a cluster.
    pub cluster: bool,
    /// `maxmemory-policy`: must be `noeviction`.
    pub eviction: Option<String>,
    /// Whether writes go to an append-only file.
    pub appendonly: Option<bool>,
    /// How often that file is flushed: `always`, `everysec` or `no`.
    pub appendfsync: Option<String>,
    /// Memory in use, in bytes.
    pub used_memory: u64,
    /// The most that it may use, in bytes; 0 for no limit.
    pub max_memory: u64,
    /// Its clock.
    pub clock: Clock,
}

/// A server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Its time, in milliseconds since the epoch.
    pub server_ms: u64,
    /// The time here when the answer came.
    pub here_ms: u64,
}

impl Facts {
    /// Why the server cannot be used, and what to do; none if it can.
    pub fn refusal(&self) -> Option<String> {
        if self.compatible < (7, 0) {
            return Some(format!("it is {}: Redis 7.0 or later is needed, or Valkey", self.version));
        }
        if self.cluster {
            return Some(
                "it is part of a cluster, which this version does not use: give a standalone server".into(),
            );
        }
        if self.role != "master" {
            return Some("it is a replica: give the address of its master".into());
        }
        match self.eviction.as_deref() {
            Some(policy) if policy != "noeviction" => Some(format!(
                "its maxmemory-policy is {policy}, with which it would drop parts of the state: set 'maxmemory-policy noeviction' in its configuration, and run CONFIG SET maxmemory-policy noeviction"
            )),
            _ => None,
        }
    }

    /// What is no reason to refuse the server, but worth knowing.
    pub fn warnings(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.eviction.is_none() {
            told.push("maxmemory-policy could not be checked: it must be noeviction".to_owned());
        }
        if self.appendonly == Some(false) {
            told.push(
                "appendonly is off: after a restart the state is rebuilt from the log and the lake"
                    .to_owned(),
            );
        }
        let skew = self.clock.server_ms.abs_diff(self.clock.here_ms);
        if skew > 2_000 {
            told.push(format!("its clock differs from this machine's by {skew} ms"));
        }
        if self.max_memory > 0 && self.used_memory > self.max_memory / 10 * 9 {
            told.push(format!(
                "it uses {} of {} bytes: writes will be refused",
                self.used_memory, self.max_memory
            ));
        }
        told
    }
}

impl RedisStore {
    /// Asks the server about itself.
    ///
    /// # Errors
    /// If it does not answer, or refuses even `INFO`.
    pub async fn examine(&self) -> Result<Facts, StoreError> {
        self.ask().await.map_err(|trouble| trouble.told(&self.0.what("examine the server")))
    }

    async fn ask(&self) -> Result<Facts, Trouble> {
        let info = text(&self.run(&["INFO"]).await?)?;
        let info: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let of = |name: &str| info.get(name).copied().unwrap_or_default();
        let redis = of("redis_version");
        let version = match info.get("valkey_version") {
            Some(valkey) => format!("valkey {valkey}"),
            None => format!("redis {redis}"),
        };
        let mut numbers = redis.split('.').map(|number| number.parse().unwrap_or(0));
        let compatible = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let eviction = match info.get("maxmemory_policy") {
            Some(policy) => Some((*policy).to_owned()),
            None => self.setting("maxmemory-policy").await?,
        };
        let appendonly = info.get("aof_enabled").map(|enabled| *enabled == "1");
        let time = self.run(&["TIME"]).await?;
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let clock =
            Clock { server_ms: millis(&time)?, here_ms: u64::try_from(here.as_millis()).unwrap_or(u64::MAX) };
        Ok(Facts {
            version,
            compatible,
            role: of("role").to_owned(),
            cluster: of("cluster_enabled") == "1",
            eviction,
            appendonly,
            appendfsync: self.setting("appendfsync").await?,
            used_memory: of("used_memory").parse().unwrap_or(0),
            max_memory: of("maxmemory").parse().unwrap_or(0),
            clock,
        })
    }

    async fn run(&self, words: &[&str]) -> Result<Value, Trouble> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        self.0.connections.run(Lane::Small, &command).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, Trouble> {
        match self.run(&["CONFIG", "GET", name]).await {
            Ok(answer) => match array(&answer)? {
                [_, value] => Ok(Some(text(value)?)),
                _ => Ok(None),
            },
            Err(Trouble::Redis(error)) if is_forbidden(&error) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

fn millis(time: &Value) -> Result<u64, Trouble> {
    let [seconds, micros] = array(time)? else { return Err(other_shape().into()) };
    let number = |value| text(value)?.parse::<u64>().map_err(|_| other_shape());
    Ok(number(seconds)? * 1000 + number(micros)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            version: "redis 7.0.15".into(),
            compatible: (7, 0),
            role: "master".into(),
            cluster: false,
            eviction: Some("noeviction".into()),
            appendonly: Some(true),
            appendfsync: Some("everysec".into()),
            used_memory: 1 << 20,
            max_memory: 0,
            clock: Clock { server_ms: 5, here_ms: 4 },
        }
    }

    #[test]
    fn an_unsuitable_server_is_refused_with_what_to_do() {
        assert_eq!((good().refusal(), good().warnings().len()), (None, 0));
        let old = Facts { compatible: (6, 2), ..good() };
        let replica = Facts { role: "slave".into(), ..good() };
        let cluster = Facts { cluster: true, ..good() };
        let evicting = Facts { eviction: Some("allkeys-lru".into()), ..good() };
        for (facts, words) in
            [(old, "7.0"), (replica, "master"), (cluster, "standalone"), (evicting, "CONFIG SET")]
        {
            let refusal = facts.refusal().unwrap();
            assert!(refusal.contains(words), "{refusal}");
        }
        let unknown = Facts { eviction: None, ..good() };
        assert!(unknown.refusal().is_none() && unknown.warnings()[0].contains("could not be checked"));
        let full = Facts { used_memory: 95, max_memory: 100, ..good() };
        assert_eq!(full.warnings().len(), 1);
    }
}
