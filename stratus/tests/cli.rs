//! The binary as a user meets it: exit codes, messages, the banner, an orderly end.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a debug build may take for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

fn stratus(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratus"));
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STRATUS_") {
            command.env_remove(name);
        }
    }
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A server on free ports; killed when the test is over.
struct Server {
    child: Child,
    banner: Vec<String>,
    pg_port: u16,
    http_port: u16,
}

impl Server {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = stratus(dir);
        command.env("STRATUS__PG__LISTEN", "127.0.0.1:0").env("STRATUS__HTTP__LISTEN", "127.0.0.1:0");
        let mut child = command.arg("up").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = Vec::new();
        for line in lines {
            let line = line.unwrap();
            let ready = line.starts_with("ready in ");
            banner.push(line);
            if ready {
                break;
            }
        }
        let words: Vec<&str> = banner[1].split_whitespace().collect();
        let port = words.iter().position(|word| *word == "-p").map(|at| words[at + 1]).unwrap();
        let http = banner[2].split_whitespace().nth(1).unwrap();
        let pg_port = port.parse().unwrap();
        let http_port = http.rsplit(':').next().unwrap().parse().unwrap();
        Self { child, banner, pg_port, http_port }
    }

    fn sql(&self, dir: &Path, query: &str) -> Output {
        stratus(dir).args(["sql", "--port", &self.pg_port.to_string(), query]).output().unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn usage_and_configuration_have_their_codes() {
    let dir = folder();
    let run = |arguments: &[&str]| stratus(dir.path()).args(arguments).output().unwrap();
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["demo", "--rate", "fast"]).status.code(), Some(2));
    assert_eq!(run(&["--help"]).status.code(), Some(0));

    std::fs::write(dir.path().join("stratus.toml"), "[data]\ndir = 'd'\n[pg]\nlisten_on = 'x'\n").unwrap();
    let output = run(&["up"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        told(&output).starts_with("stratus: stratus.toml:4: there is no key \"pg.listen_on\""),
        "{}",
        told(&output)
    );
    assert!(!dir.path().join("d").exists());

    let with = |name: &str, value: &str, command: &str| {
        stratus(dir.path()).env(name, value).args([command, "-c", "/dev/null"]).output().unwrap()
    };
    let output = with("STRATUS__KAFKA__BROKERS", "sasl://u:secret@h:9092", "up");
    assert_eq!(output.status.code(), Some(78));
    assert!(told(&output).starts_with("stratus: STRATUS__KAFKA__BROKERS: "), "{}", told(&output));
    assert!(!told(&output).contains("secret"));
    for layer in ["ingest", "speed", "batch", "serve"] {
        let output = with("STRATUS__STATE__KIND", "redb", layer);
        assert_eq!(output.status.code(), Some(78), "{}", told(&output));
        assert!(told(&output).contains("a file that one process holds"), "{}", told(&output));
    }
    assert_eq!(run(&["up", "-c", "missing.toml"]).status.code(), Some(78));
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    let dir = folder();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for arguments in [["sql", "SELECT 1", "--port", &port], ["view", "list", "--port", &port]] {
        let output = stratus(dir.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{}", told(&output));
        assert!(told(&output).contains("Is `stratus up` running?"));
    }
}

#[test]
fn a_server_tells_where_it_is_and_drains() {
    let dir = folder();
    std::fs::write(
        dir.path().join("views.sql"),
        "-- one source\nCREATE TABLE IF NOT EXISTS clicks (page TEXT, ms INT);\n",
    )
    .unwrap();
    let mut server = Server::start(dir.path(), &["--sql", "views.sql"]);
    assert!(server.banner[0].contains("log ./data/logs, state ./data/state.redb, lake ./data/lake"));
    assert_ne!((server.pg_port, server.http_port), (0, 0));

    // The banner comes before the file's statements are through.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = server.sql(dir.path(), "SELECT name FROM stratus.sources");
        if String::from_utf8_lossy(&output.stdout) == "  name\n--------\n clicks\n(1 row)\n" {
            break;
        }
        assert!(Instant::now() < deadline, "{}{}", told(&output), String::from_utf8_lossy(&output.stdout));
    }

    let output = server.sql(dir.path(), "SELECT 1;\nSELECT\n  nothing FROM clicks; SELECT 2");
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("ERROR:  42703: "), "{}", told(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains('2'), "it went on after an error");

    let mut piped = stratus(dir.path())
        .args(["sql", "--url", &format!("postgres://127.0.0.1:{}", server.pg_port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(b"SELECT 40 + 2 AS answer").unwrap();
    let output = piped.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("42"));

    let port = server.http_port.to_string();
    let taken = stratus(folder().path())
        .env("STRATUS__HTTP__LISTEN", format!("127.0.0.1:{port}"))
        .env("STRATUS__PG__LISTEN", "127.0.0.1:0")
        .arg("up")
        .output()
        .unwrap();
    assert_eq!(taken.status.code(), Some(75), "{}", told(&taken));

    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

/// What `stratus password` prints lets the password in, and no other.
#[test]
fn a_password_is_kept_as_its_verifier() {
    let dir = folder();
    let verifier = |typed: &str| {
        let mut command = stratus(dir.path());
        command.arg("password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    assert_eq!(verifier("\n").status.code(), Some(1));
    let output = verifier(" hush, hush\n");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && !told(&output).contains("hush"), "{}", told(&output));
    assert!(text.starts_with("SCRAM-SHA-256$4096:") && text.lines().count() == 1, "{text}");

    std::fs::write(dir.path().join("stratus.toml"), format!("[pg.users]\nann = '{}'\n", text.trim_end()))
        .unwrap();
    let server = Server::start(dir.path(), &[]);
    let ask = |password: &str| {
        let url = format!("postgres://ann@127.0.0.1:{}", server.pg_port);
        let mut command = stratus(dir.path());
        command.env("PGPASSWORD", password).args(["sql", "--url", &url, "SELECT 42"]).output().unwrap()
    };
    assert!(String::from_utf8_lossy(&ask(" hush, hush").stdout).contains("42"));
    assert!(!ask("hush, hush").status.success(), "a blank belongs to it");
}

#[test]
fn a_statement_that_fails_stops_the_server() {
    let dir = folder();
    let script = "CREATE TABLE clicks (page TEXT, ms INT);\n\nCREATE MATERIALIZED VIEW v AS\n  SELECT page, median(ms) FROM clicks GROUP BY 1;\n";
    std::fs::write(dir.path().join("views.sql"), script).unwrap();
    let output = stratus(dir.path())
        .env("STRATUS__PG__LISTEN", "127.0.0.1:0")
        .env("STRATUS__HTTP__LISTEN", "127.0.0.1:0")
        .args(["up", "--sql", "views.sql"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", told(&output));
    let told = told(&output);
    assert!(told.contains("stratus: views.sql:4: ERROR:  0A000: median keeps every value it sees"), "{told}");
    assert!(told.contains("HINT:  approx_percentile_cont(ms, 0.5)"), "{told}");
}
