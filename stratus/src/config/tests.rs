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
    assert!(told(of_text("[state]\nkind = 'redis'")).contains("Redis is not in this version"));
    assert!(told(of_text("[state]\nurl = 'redis://u:secret@h'")).contains("not in this version"));
    assert!(told(of_text("[kafka]\nbrokers = ['a:9092']")).contains("Kafka is not in this version"));
    assert!(told(of_text("[lake]\nurl = 's3://bucket'")).contains("s3:// is not in this version"));
}

#[test]
fn only_loopback_listens() {
    assert!(told(of_text("[http]\nlisten = '0.0.0.0:8080'")).contains("no authentication yet"));
    assert!(told(of_text("[pg]\nlisten = '5433'")).contains("not an address and a port"));
    assert!(told(of_text("[pg]\nlisten = '127.0.0.1:8080'")).contains("are both 127.0.0.1:8080"));
    assert!(of_text("[pg]\nlisten = '127.0.0.1:0'\n[http]\nlisten = '127.0.0.1:0'").is_ok());
}

#[test]
fn secrets_are_not_shown() {
    let lake = LakeConfig { url: Some("s3://key:secret@host/b?token=secret".to_owned()) };
    let shown = format!("{lake:?}");
    assert!(!shown.contains("secret") && shown.contains("s3://***@host/b?***"), "{shown}");
    let kafka = KafkaConfig { brokers: Some("sasl://u:secret@h:9092".to_owned()) };
    assert!(!format!("{kafka:?}").contains("secret"));
}
