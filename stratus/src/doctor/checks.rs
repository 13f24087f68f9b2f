//! The examinations: each asks one thing and judges the answer.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use stratus_lake::{Lake, MasterDataset, Probed};
use stratus_logs::kafka::{KafkaSettings, KafkaTopic, TopicFacts};
use stratus_seam::catalog::{CatalogState, Connector, Source};
use stratus_seam::catalog_log::Catalog;
use stratus_seam::offsets::OffsetVector;
use stratus_state::redis::{RedisStore, Rights};

use super::finding::{Finding, Trouble, problem, warning};
use super::{disk, told};
use crate::config::{Config, StateKind};
use crate::node::OpenLogs;

/// A retention below this leaves little time to mend an ingest that has stopped.
const SHORT_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Clocks that are further apart than this confuse people and leases.
const SKEW: Duration = Duration::from_secs(2);

/// Examines everything that the configuration names.
pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    told(&mut findings, "data directory", data_directory(&config.data.dir));
    if config.data.dir.is_dir() {
        told(&mut findings, "disk", disk::room(&config.data.dir));
    }
    let catalog = lake(config, &mut findings).await;
    if let Some(folder) = other_folder(config) {
        told(&mut findings, "disk of the lake", disk::room(&folder));
    }
    state(config, &mut findings).await;
    kafka(config, catalog.as_ref(), &mut findings).await;
    told(&mut findings, "pg.listen", port(config.pg.listen));
    told(&mut findings, "http.listen", port(config.http.listen));
    told(&mut findings, "users", users(config));
    findings
}

fn data_directory(dir: &Path) -> Result<String, Trouble> {
    let todo = "give this user the right to write there, or name another folder as data.dir";
    let name = dir.display();
    std::fs::create_dir_all(dir).map_err(|error| problem(format!("{name}: {error}"), todo))?;
    let probe = tempfile::Builder::new().prefix("doctor").tempfile_in(dir);
    probe.map_err(|error| problem(format!("{name}: {error}"), todo))?;
    Ok(format!("{name} can be written"))
}

/// The folder of the lake, if it is one, is there, and does not lie in the data directory.
fn other_folder(config: &Config) -> Option<PathBuf> {
    let url = config.lake_url();
    let path = match url.split_once("://") {
        None => PathBuf::from(url),
        Some(("file", path)) => PathBuf::from(path),
        Some(_) => return None,
    };
    (path.is_dir() && !path.starts_with(&config.data.dir)).then_some(path)
}

async fn lake(config: &Config, findings: &mut Vec<Finding>) -> Option<(Lake, CatalogState)> {
    let url = config.lake_url();
    let opened = Lake::open(&url);
    let lake = match opened {
        Ok(lake) => lake,
        Err(error) => {
            told(findings, "lake", Err(problem(error, "lake.url has to be a folder that can be written")));
            return None;
        }
    };
    let probed = lake.probe().await;
    told(
        findings,
        "lake",
        match probed {
            Ok(probed) => judge_lake(&url, probed),
            Err(error) => Err(problem(error, "the lake has to be readable and writable for every layer")),
        },
    );
    let catalog = Catalog::new(std::sync::Arc::new(lake.catalog()));
    match catalog.refresh().await {
        Ok(seen) => {
            let (sources, views) = (seen.sources.len(), seen.views.len());
            told(findings, "catalog", Ok(format!("{sources} sources, {views} views")));
            Some((lake, CatalogState::clone(&seen)))
        }
        Err(error) => {
            told(
                findings,
                "catalog",
                Err(problem(error, "restore the lake's folder catalog/ from a backup")),
            );
            None
        }
    }
}

fn judge_lake(url: &str, probed: Probed) -> Result<String, Trouble> {
    if !probed.puts_only_if_absent {
        return Err(problem(
            "it overwrites an object that is there, although asked not to: two writers would destroy each other's work",
            "use a store with conditional writes",
        ));
    }
    if probed.skew > SKEW {
        let what = format!("its clock is {} s away from this machine's", probed.skew.as_secs());
        return Err(warning(what, "set both clocks by NTP"));
    }
    Ok(format!("{url} can be written, and does not overwrite"))
}

async fn state(config: &Config, findings: &mut Vec<Finding>) {
    match config.state.kind {
        StateKind::Memory => told(
            findings,
            "state",
            Err(warning("it is in memory and gone with the process", "set state.kind = \"redb\" to keep it")),
        ),
        StateKind::Redb => {
            let path = config.state_path();
            let what = if path.exists() { "is there" } else { "will be made" };
            told(findings, "state", Ok(format!("redb: {} {what}", path.display())));
        }
        StateKind::Redis => redis(config, findings).await,
    }
}

async fn redis(config: &Config, findings: &mut Vec<Finding>) {
    let url = config.state.url.clone().unwrap_or_default();
    let asked = async {
        let store = RedisStore::open(&url).await.map_err(|error| error.to_string())?;
        let facts = store.examine().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((facts, store.rights().await.map_err(|error| error.to_string())?))
    };
    match asked.await {
        Err(error) => told(
            findings,
            "state",
            Err(problem(
                error,
                "docs/redis.md says what the server must be, and what its user must be allowed",
            )),
        ),
        Ok((facts, rights)) => {
            let shown = config.state.shown_url();
            told(findings, "state", Ok(format!("{} at {shown}", facts.version)));
            for told_of in facts.warnings() {
                told(findings, "state", Err(warning(told_of, "docs/redis.md has the settings")));
            }
            told(findings, "rights", judge_rights(rights));
        }
    }
}

fn judge_rights(rights: Rights) -> Result<String, Trouble> {
    match rights {
        Rights::Enough => Ok("the user may do all that the store does".to_owned()),
        Rights::Missing(said) => {
            Err(problem(said.join("; "), "give the user the rights that docs/redis.md lists"))
        }
        Rights::Untold(why) => Ok(format!(
            "not examined, the server does not tell by ACL DRYRUN ({why}); docs/redis.md lists what is needed"
        )),
    }
}

async fn kafka(config: &Config, catalog: Option<&(Lake, CatalogState)>, findings: &mut Vec<Finding>) {
    let topics: Vec<&Source> = catalog
        .iter()
        .flat_map(|(_, catalog)| catalog.sources.values())
        .filter(|source| source.connector == Connector::Kafka)
        .collect();
    let settings = match OpenLogs::kafka_of(config) {
        Ok(Some(settings)) => settings,
        Ok(None) if topics.is_empty() => {
            return told(findings, "kafka", Ok("none is configured, and no source needs one".to_owned()));
        }
        Ok(None) => {
            let what = format!("source \"{}\" reads a topic, and no brokers are configured", topics[0].name);
            return told(findings, "kafka", Err(problem(what, "set kafka.brokers = \"host:9092\"")));
        }
        Err(error) => return told(findings, "kafka", Err(problem(error, "correct kafka.properties"))),
    };
    let brokers = KafkaTopic::brokers(&settings).await;
    let reached = brokers.is_ok();
    told(
        findings,
        "kafka",
        match brokers {
            Ok(count) => Ok(format!("{count} brokers, the first at {}", settings.brokers())),
            Err(error) => Err(problem(
                error,
                "see that the brokers run, that their advertised listeners can be reached from here, and that kafka.properties has what they ask for (security.protocol, sasl.*)",
            )),
        },
    );
    let Some((lake, _)) = catalog.filter(|_| reached) else { return };
    for source in topics {
        let subject = format!("source \"{}\"", source.name);
        for found in topic(&settings, lake, source).await {
            told(findings, subject.clone(), found);
        }
    }
}

async fn topic(settings: &KafkaSettings, lake: &Lake, source: &Source) -> Vec<Result<String, Trouble>> {
    let name = source.options.get("topic").map_or("", String::as_str);
    let own: BTreeMap<String, String> = OpenLogs::properties(&source.options);
    let facts = match settings.with_source(&own) {
        Ok(settings) => KafkaTopic::look(&settings, name).await,
        Err(error) => {
            return vec![Err(problem(error, "drop the source and create it anew without that setting"))];
        }
    };
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => return vec![Err(problem(error, "create the topic, or allow this user to read it"))],
    };
    let absorbed = async { MasterDataset::open(lake, source).await?.absorbed().await };
    match absorbed.await {
        Ok(absorbed) => judge_topic(name, source, &facts, &absorbed),
        Err(error) => {
            vec![Err(problem(error, "the master dataset cannot be read: restore it from a backup"))]
        }
    }
}

/// What a topic's state means for its source.
fn judge_topic(
    name: &str,
    source: &Source,
    facts: &TopicFacts,
    absorbed: &OffsetVector,
) -> Vec<Result<String, Trouble>> {
    if facts.log_id != source.log {
        return vec![Err(problem(
            format!(
                "topic {name} is another one than the source was created over: it was deleted and made again"
            ),
            "drop the source and create it anew to read the new topic",
        ))];
    }
    let mut found = Vec::new();
    if facts.is_compacted() {
        found.push(Err(problem(
            format!("topic {name} is compacted: records are removed, and a view counts every record"),
            "set its cleanup.policy to delete",
        )));
    }
    if let Some(retention) = facts.retention.filter(|retention| *retention < SHORT_RETENTION) {
        found.push(Err(warning(
            format!("topic {name} keeps records for {} minutes only", retention.as_secs() / 60),
            "what ingest has not absorbed by then is lost: raise retention.ms, or watch stratus_ingest_retention_headroom_records",
        )));
    }
    for (partition, earliest) in facts.earliest.iter().filter(|(p, earliest)| absorbed.get(*p) < *earliest) {
        let at = absorbed.get(partition);
        found.push(Err(problem(
            format!("partition {partition} of topic {name} begins at {earliest}, and ingest stands at {at}: what lies between is lost"),
            "start ingest: it records the gap and goes on; stratus.gaps lists it",
        )));
    }
    if facts.cleanup_policy.is_none() {
        found.push(Err(warning(
            format!("the settings of topic {name} may not be read"),
            "allow DescribeConfigs, or see yourself that cleanup.policy is delete",
        )));
    }
    if found.is_empty() {
        found.push(Ok(format!("topic {name}, {} partitions", facts.partitions)));
    }
    found
}

fn port(address: SocketAddr) -> Result<String, Trouble> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(warning(
            format!("{address} is in use"),
            "by a stratus that runs already, or by another program: then name another address",
        )),
        Err(error) => Err(problem(format!("{address}: {error}"), "name an address of this machine")),
    }
}

fn users(config: &Config) -> Result<String, Trouble> {
    let loopback = config.pg.listen.ip().is_loopback();
    match (config.pg.users.len(), loopback) {
        (0, _) => Ok("none: whoever is on this machine may connect".to_owned()),
        (count, true) => Ok(format!("{count}, with passwords")),
        (_, false) => Err(warning(
            "passwords are not sent in clear, but what is asked and answered is",
            "listen on loopback and let others in through a tunnel, or keep the network closed",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use stratus_seam::ids::SourceId;
    use stratus_seam::log::LogId;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(port(address).is_err_and(|trouble| trouble.what.contains("in use")));
        drop(taken);
        assert!(port(address).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        assert!(data_directory(&folder.path().join("new/one")).is_ok());
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(data_directory(&file).is_err());
    }

    #[test]
    fn passwords_over_a_network_are_warned_of() {
        let mut config = Config::default();
        assert!(users(&config).is_ok());
        config.pg.users.insert("ann".into(), crate::config::Secret("hush".into()));
        assert!(users(&config).unwrap().contains("1, with"));
        config.pg.listen = "0.0.0.0:5433".parse().unwrap();
        assert!(users(&config).is_err());
    }

    fn topic_of(earliest: OffsetVector) -> (Source, TopicFacts) {
        let log = LogId("cluster/topic".into());
        let source = Source {
            id: SourceId::new(),
            name: "clicks".into(),
            columns: Vec::new(),
            connector: Connector::Kafka,
            options: BTreeMap::new(),
            log: log.clone(),
            start: OffsetVector::zero(),
        };
        let facts = TopicFacts {
            log_id: log,
            partitions: 2,
            earliest,
            end: OffsetVector::from([(0, 90), (1, 90)]),
            cleanup_policy: Some("delete".into()),
            retention: Some(7 * SHORT_RETENTION),
        };
        (source, facts)
    }

    #[test]
    fn a_topic_is_judged_by_what_a_source_needs_of_it() {
        let absorbed = OffsetVector::from([(0, 40), (1, 9)]);
        let (source, good) = topic_of(OffsetVector::from([(0, 40)]));
        let judge = |facts: &TopicFacts| -> Vec<String> {
            let told = judge_topic("t", &source, facts, &absorbed);
            told.into_iter()
                .map(|told| match told {
                    Ok(fine) => format!("ok: {fine}"),
                    Err(trouble) => format!("{:?}: {}", trouble.verdict, trouble.what),
                })
                .collect()
        };
        assert_eq!(judge(&good), ["ok: topic t, 2 partitions"]);
        assert_eq!(judge(&TopicFacts { retention: None, ..good.clone() }), ["ok: topic t, 2 partitions"]);
        let bad = TopicFacts {
            cleanup_policy: Some("compact,delete".into()),
            retention: Some(Duration::from_secs(300)),
            earliest: OffsetVector::from([(0, 40), (1, 12)]),
            ..good.clone()
        };
        let told = judge(&bad);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("Problem: topic t is compacted"), "{told:?}");
        assert!(told[1].starts_with("Warning: topic t keeps records for 5 minutes only"), "{told:?}");
        assert!(told[2].contains("partition 1 of topic t begins at 12, and ingest stands at 9"), "{told:?}");
        let secretive = judge(&TopicFacts { cleanup_policy: None, ..good.clone() });
        assert!(
            secretive[0].starts_with("Warning: the settings of topic t may not be read"),
            "{secretive:?}"
        );
        let other = judge(&TopicFacts { log_id: LogId("cluster/other".into()), ..bad });
        assert_eq!(other.len(), 1, "of another topic nothing else matters: {other:?}");
        assert!(other[0].contains("deleted and made again"), "{other:?}");
    }

    #[tokio::test]
    async fn a_lake_is_judged_by_what_writers_need_of_it() {
        let good = Lake::open("memory://").unwrap().probe().await.unwrap();
        assert!(judge_lake("memory://", good).unwrap().contains("does not overwrite"));
        let mut late = good;
        late.skew = Duration::from_secs(9);
        let trouble = judge_lake("l", late).unwrap_err();
        assert!(trouble.verdict == Verdict::Warning && trouble.what.contains("9 s away"), "{trouble:?}");
        let mut careless = late;
        careless.puts_only_if_absent = false;
        let trouble = judge_lake("l", careless).unwrap_err();
        assert!(trouble.verdict == Verdict::Problem && trouble.what.contains("overwrites"), "{trouble:?}");
    }

    #[test]
    fn rights_that_are_missing_are_a_problem_and_those_that_are_not_told_are_none() {
        assert!(judge_rights(Rights::Enough).is_ok());
        let missing = judge_rights(Rights::Missing(vec!["no GET".into(), "no SET".into()])).unwrap_err();
        assert!(missing.verdict == Verdict::Problem && missing.what == "no GET; no SET");
        assert!(judge_rights(Rights::Untold("NOPERM".into())).unwrap().contains("not examined"));
    }
}
