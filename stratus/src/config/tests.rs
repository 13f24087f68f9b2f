#![allow(clippy::unwrap_used)]

use super::*;

fn of_text(text: &str) -> Result<Config, ConfigError> {
    Config::of(&layers::of_text(Path::new("stratus.toml"), text)?)
}

fn of_variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::of(&layers::of_environment(variables)?)
}

fn told(result: Result<Config, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn nothing_set_is_embedded() {
    let config = of_text("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.logs_dir(), Path::new("data/logs"));
    assert_eq!(config.lake_url(), "data/lake");
    assert_eq!(config.state_path(), Path::new("data/state.redb"));
    assert_eq!(config.pg.listen.to_string(), "127.0.0.1:5433");
}

#[test]
fn every_key_is_read() {
    let config = of_text(
        "[data]\ndir = '/srv/s'\n[lake]\nurl = 'file:///srv/lake'\n[state]\nkind = 'redb'\nurl = '/srv/x.redb'\nshards = 0x20\n\
         [pg]\nlisten = 'localhost:0'\n[http]\nlisten = '[::1]:80'\n",
    )
    .unwrap();
    assert_eq!(config.data.dir, Path::new("/srv/s"));
    assert_eq!(config.lake_url(), "file:///srv/lake");
    assert_eq!(config.state_path(), Path::new("/srv/x.redb"));
    assert_eq!(config.state.shards, 32);
    assert_eq!(config.pg.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.http.listen.to_string(), "[::1]:80");
    // Each key of the list reaches a setting, or an error that is about the key.
    for key in keys::KEYS {
        let variable = format!("STRATUS__{}", key.to_uppercase().replace('.', "__"));
        let message = of_variables(&[(&variable, "")]).unwrap_err().to_string();
        assert!(message.starts_with(&variable) && !message.contains("not read"), "{message}");
    }
}

#[test]
fn the_environment_goes_before_the_file() {
    let mut settings = layers::of_text(Path::new("f"), "[state]\nshards = 4\nkind = 'memory'").unwrap();
    let variables =
        [("STRATUS__STATE__SHARDS".to_owned(), "8".to_owned()), ("STRATUS_LOG".into(), "debug".into())];
    settings.extend(layers::of_environment(variables.into_iter()).unwrap());
    let config = Config::of(&settings).unwrap();
    assert_eq!((config.state.shards, config.state.kind), (8, StateKind::Memory));
}

#[test]
fn mistakes_are_told_with_their_place() {
    assert_eq!(
        told(of_text("# a\n[state]\nshard = 4")),
        "stratus.toml:3: there is no key \"state.shard\"; did you mean \"state.shards\"?"
    );
    assert!(
        told(of_text("[stat]\nkind = 'redb'")).starts_with("stratus.toml:1: there is no section \"stat\"")
    );
    assert!(told(of_text("dir = 'x'")).contains("did you mean \"data.dir\"?"));
    assert!(told(of_text("[data]\ndir = 'x'\ndir = 'y'")).starts_with("stratus.toml:3: "));
    assert!(told(of_text("[data]\n\ndir = [1]")).starts_with("stratus.toml:3: the value is of type array"));
    assert!(told(of_text("[state]\nshards = 0")).contains("from 1 to 1024"));
    assert_eq!(
        told(of_variables(&[("STRATUS__STATE__ULR", "x")])),
        "STRATUS__STATE__ULR: there is no key \"state.ulr\" for this variable; did you mean STRATUS__STATE__URL?"
    );
    assert!(
        told(of_variables(&[("STRATUS__STATE__SHARDS", "many")])).starts_with("STRATUS__STATE__SHARDS: ")
    );
}

#[test]
fn what_is_not_built_yet_is_refused() {
    assert!(told(of_text("[state]\nurl = 'etcd://u:secret@h'")).contains("not in this version"));
    assert!(told(of_text("[lake]\nurl = 's3://bucket'")).contains("s3:// is not in this version"));
}

#[test]
fn redis_needs_its_url() {
    let config = of_text("[state]\nkind = 'redis'\nurl = 'rediss://u:secret@h:6380/1'").unwrap();
    assert_eq!(config.state.kind, StateKind::Redis);
    assert!(!format!("{config:?}").contains("secret"));
    assert!(told(of_text("[state]\nkind = 'redis'")).contains("where the server is"));
    assert!(told(of_text("[state]\nkind = 'redis'\nurl = '/x'")).starts_with("stratus.toml:3: "));
    assert!(told(of_text("[state]\nurl = 'redis://h'")).contains("state.kind = \"redis\""));
}

#[test]
fn settings_of_the_kafka_client_are_taken_by_name() {
    let text = "[kafka]\nbrokers = ['a:9092', 'b:9092']\n[kafka.properties]\n\"security.protocol\" = 'sasl_ssl'\n\
                sasl.mechanisms = 'SCRAM-SHA-256'\nfetch.wait.max.ms = 50\nenable.ssl.certificate.verification = false\n";
    let config = of_text(text).unwrap();
    assert_eq!(config.kafka.brokers.as_deref(), Some("a:9092,b:9092"));
    let of = |name: &str| config.kafka.properties.get(name).map(|secret| secret.0.as_str());
    assert_eq!(of("security.protocol"), Some("sasl_ssl"));
    assert_eq!(of("sasl.mechanisms"), Some("SCRAM-SHA-256"));
    assert_eq!(of("fetch.wait.max.ms"), Some("50"));
    assert_eq!(of("enable.ssl.certificate.verification"), Some("false"));
    let variables =
        [("STRATUS__KAFKA__BROKERS", "h:1"), ("STRATUS__KAFKA__PROPERTIES__SASL_PASSWORD", "hush")];
    let config = of_variables(&variables).unwrap();
    assert_eq!(config.kafka.properties.get("sasl.password"), Some(&Secret("hush".into())));
    assert!(!format!("{config:?}").contains("hush"));
    assert!(told(of_text("[kafka]\nproperties = 3")).contains("table of names and values"));
    assert!(told(of_text("[kafka.properties]\na = 'b'")).contains("no brokers"));
    assert!(told(of_text("[kafka]\nbrokers = 'sasl://u:secret@h'")).contains("host:port"));
}

#[test]
fn other_machines_need_users() {
    assert!(told(of_text("[http]\nlisten = '0.0.0.0:8080'")).contains("HTTP knows no users"));
    assert!(told(of_text("[pg]\nlisten = '0.0.0.0:5433'")).contains("there are no users"));
    let config = of_text("[pg]\nlisten = '0.0.0.0:5433'\n[pg.users]\nAnn = 'hush'").unwrap();
    assert_eq!(config.pg.users.get("Ann"), Some(&Secret("hush".into())));
    assert!(!format!("{config:?}").contains("hush"));
    let config = of_variables(&[("STRATUS__PG__USERS__Ann", "hush")]).unwrap();
    assert!(config.pg.users.contains_key("Ann"));
    assert!(told(of_text("[pg]\nlisten = '5433'")).contains("not an address and a port"));
    assert!(told(of_text("[pg]\nlisten = '127.0.0.1:8080'")).contains("are both 127.0.0.1:8080"));
    assert!(of_text("[pg]\nlisten = '127.0.0.1:0'\n[http]\nlisten = '127.0.0.1:0'").is_ok());
}

#[test]
fn secrets_are_not_shown() {
    let lake = LakeConfig { url: Some("s3://key:secret@host/b?token=secret".to_owned()) };
    let shown = format!("{lake:?}");
    assert!(!shown.contains("secret") && shown.contains("s3://***@host/b?***"), "{shown}");
}
