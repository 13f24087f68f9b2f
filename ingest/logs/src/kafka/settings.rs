//! How brokers are reached: their addresses, and settings of librdkafka that are handed on as they are.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;

/// Settings that are decided here, and why.
const OWNED: [(&str, &str); 17] = [
    ("bootstrap.servers", "kafka.brokers names the brokers"),
    ("metadata.broker.list", "kafka.brokers names the brokers"),
    ("client.id", "each layer has one of its own"),
    ("group.id", "groups only show how far each layer is; their names are stratus-<source>-<layer>"),
    ("group.protocol", "partitions are assigned by hand"),
    ("enable.auto.commit", "the place to read on from is kept with what was computed, not in a group"),
    ("enable.auto.offset.store", "the place to read on from is kept with what was computed, not in a group"),
    ("auto.offset.reset", "WITH (start = 'earliest' | 'latest' | '<timestamp>') says where a source begins"),
    ("isolation.level", "only committed records count: it is read_committed"),
    ("enable.partition.eof", "it tells when everything was read"),
    ("partition.assignment.strategy", "partitions are assigned by hand"),
    ("check.crcs", "what is counted for ever is checked once"),
    ("enable.idempotence", "events over HTTP are produced idempotently"),
    ("acks", "events over HTTP are acknowledged by all replicas"),
    ("transactional.id", "events over HTTP are produced idempotently, without transactions"),
    ("plugin.library.paths", "it would load code"),
    ("sasl.kerberos.kinit.cmd", "it would run a command, and Kerberos is not compiled in"),
];

/// Why a setting is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaSettingsError {
    /// It is decided by the product.
    #[error("the Kafka setting {name} cannot be given: {why}")]
    Owned {
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// librdkafka does not take it. The value is not repeated: it may be a secret.
    #[error("the Kafka client does not take the setting {name}: {why}")]
    Refused {
        /// Its name.
        name: String,
        /// What librdkafka says.
        why: String,
    },
}

/// How a cluster is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    brokers: String,
    properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// The brokers to begin with (`host:port`, with commas between them), and settings of librdkafka.
    ///
    /// # Errors
    /// [`KafkaSettingsError`] for a setting that is not the user's, or that librdkafka does not take.
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self, KafkaSettingsError> {
        Self { brokers: brokers.to_owned(), properties: BTreeMap::new() }.with_source(properties)
    }

    /// The same with settings of one source over them.
    ///
    /// # Errors
    /// As [`KafkaSettings::new`].
    pub fn with_source(&self, properties: &BTreeMap<String, String>) -> Result<Self, KafkaSettingsError> {
        let mut settings = self.clone();
        for (name, value) in properties {
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| owned == name) {
                return Err(KafkaSettingsError::Owned { name: name.clone(), why });
            }
            let mut alone = ClientConfig::new();
            alone.set(name, value);
            if let Err(error) = alone.create_native_config() {
                let why = error.to_string();
                let why = match why.contains(value.as_str()) {
                    true => "its name or its value is not known".to_owned(),
                    false => why,
                };
                return Err(KafkaSettingsError::Refused { name: name.clone(), why });
            }
            settings.properties.insert(name.clone(), value.clone());
        }
        Ok(settings)
    }

    /// The brokers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// A client's configuration.
    pub(super) fn client(&self, id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Defaults that users may change.
        config.set("socket.keepalive.enable", "true");
        config.set("fetch.queue.backoff.ms", "10");
        config.set("fetch.wait.max.ms", "100");
        config.set("queued.max.messages.kbytes", "16384");
        config.set("queued.min.messages", "100000");
        config.set("linger.ms", "5");
        // A broker that is back is to be found at once, not after ten seconds.
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers).set("client.id", id);
        config
    }

    /// A consumer's configuration: partitions by hand, from places that we know, committed records only.
    pub(super) fn consumer(&self, id: &str) -> ClientConfig {
        let mut config = self.client(id);
        config
            .set("group.id", id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true");
        config
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaSettings").field("brokers", &self.brokers).field("properties", &names).finish()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    fn properties(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_the_product_decides_is_refused_with_the_reason() {
        for (name, _) in OWNED {
            let refused = KafkaSettings::new("h:1", &properties(&[(name, "true")])).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
        let unknown = KafkaSettings::new("h:1", &properties(&[("fetch.wait.max", "5")])).unwrap_err();
        assert!(unknown.to_string().contains("fetch.wait.max"), "{unknown}");
        let wrong = KafkaSettings::new("h:1", &properties(&[("security.protocol", "hush")])).unwrap_err();
        assert!(!wrong.to_string().contains("hush"), "{wrong}");
    }

    #[test]
    fn tls_and_sasl_are_compiled_in() {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let settings = KafkaSettings::new(
                "127.0.0.1:1",
                &properties(&[
                    ("security.protocol", "sasl_ssl"),
                    ("sasl.mechanisms", mechanism),
                    ("sasl.username", "ann"),
                    ("sasl.password", "hush"),
                ]),
            )
            .unwrap();
            assert!(!format!("{settings:?}").contains("hush"));
            settings.consumer("test").create::<BaseConsumer>().unwrap();
        }
    }
}
