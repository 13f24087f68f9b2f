//! A client of a running server, over its SQL front door.

mod fault;
mod table;

use std::time::Duration;

use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, NoTls, SimpleQueryMessage};

use crate::cli::ServerArguments;
use crate::config;
use crate::exit::{CONFIGURATION, FAILED, Failure, UNAVAILABLE};

pub(crate) use fault::Fault;
pub(crate) use table::Table;

/// How long a server on this machine may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// A user and a password.
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// A connection.
pub(crate) struct Session {
    client: Client,
}

/// What a statement came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has rows, perhaps none.
    Rows(Table),
    /// It was a command.
    Done,
}

impl Session {
    /// Connects to the server that the arguments name.
    pub(crate) async fn to_server(arguments: &ServerArguments) -> anyhow::Result<Self> {
        Ok(Self::connect(&target(arguments)?).await?)
    }

    /// Connects to a server of this machine that has no users.
    pub(crate) async fn at(address: std::net::SocketAddr) -> Result<Self, Failure> {
        Self::connect(&local(&address.ip().to_string(), address.port())).await
    }

    /// Connects to this process's own server.
    pub(crate) async fn to_itself(
        address: std::net::SocketAddr,
        login: Option<&Login>,
    ) -> Result<Self, Failure> {
        // An address that stands for every one of this machine is reached by loopback.
        let host =
            if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        let mut target = local(&host, address.port());
        if let Some(login) = login {
            target.user(&login.user).password(&login.password);
        }
        Self::connect(&target).await
    }

    async fn connect(target: &Config) -> Result<Self, Failure> {
        let place = place(target);
        let (client, mut connection) = target.connect(NoTls).await.map_err(|error| {
            if let Some(told) = error.as_db_error() {
                let message =
                    format!("the server at {place} refuses: {} ({})", told.message(), told.code().code());
                return Failure::new(FAILED, message);
            }
            if target.get_password().is_none() && error.to_string().contains("password missing") {
                return Failure::new(
                    FAILED,
                    format!(
                        "the server at {place} wants a password: set PGUSER and PGPASSWORD, or give a --url"
                    ),
                );
            }
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Failure::new(
                UNAVAILABLE,
                format!("no server answers at {place}: {why}. Is `stratus up` running?"),
            )
        })?;
        tokio::spawn(async move {
            // An error of the connection is told to the statement that waits for its answer.
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    eprint!("{}", Fault::from(&notice));
                }
            }
        });
        Ok(Self { client })
    }

    /// Runs one statement.
    pub(crate) async fn run(&self, statement: &str) -> Result<Outcome, Fault> {
        let messages = self.client.simple_query(statement).await.map_err(|error| Fault::of(&error))?;
        let mut table: Option<Table> = None;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    table = Some(Table::new(columns.iter().map(|column| column.name().to_owned())));
                }
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|index| row.get(index).map(str::to_owned));
                    if let Some(table) = &mut table {
                        table.push(cells.collect());
                    }
                }
                _ => {}
            }
        }
        Ok(table.map_or(Outcome::Done, Outcome::Rows))
    }

    /// Runs a query.
    pub(crate) async fn rows(&self, query: &str) -> Result<Table, Fault> {
        match self.run(query).await? {
            Outcome::Rows(table) => Ok(table),
            Outcome::Done => Ok(Table::new(std::iter::empty())),
        }
    }

    /// The names and types of a query's columns, without running it.
    pub(crate) async fn columns(&self, query: &str) -> Result<Table, Fault> {
        let statement = self.client.prepare(query).await.map_err(|error| Fault::of(&error))?;
        let mut table = Table::new(["column", "type"].into_iter().map(str::to_owned));
        for column in statement.columns() {
            table.push(vec![Some(column.name().to_owned()), Some(column.type_().name().to_owned())]);
        }
        Ok(table)
    }

    /// What stops the statement that runs.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }
}

/// A variable of the environment that says something.
fn of(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A server by its address; user and password as libpq takes them from the environment.
fn local(host: &str, port: u16) -> Config {
    let mut target = Config::new();
    target.host(host).port(port).dbname("stratus").connect_timeout(CONNECT).application_name("stratus");
    target.user(of("PGUSER").as_deref().unwrap_or("stratus"));
    if let Some(password) = of("PGPASSWORD") {
        target.password(password);
    }
    target
}

/// `host:port`, without user and password.
fn place(target: &Config) -> String {
    let host = match target.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => "a socket".to_owned(),
    };
    match target.get_ports().first() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn target(arguments: &ServerArguments) -> anyhow::Result<Config> {
    if let Some(url) = &arguments.url {
        // The error tells no part of the URL, which may hold a password.
        let mut target: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Failure::new(CONFIGURATION, format!("--url is not the URL of a server: {why}"))
        })?;
        if target.get_user().is_none_or(str::is_empty) {
            target.user("stratus");
        }
        if target.get_dbname().is_none_or(str::is_empty) {
            target.dbname("stratus");
        }
        if target.get_password().is_none()
            && let Some(password) = of("PGPASSWORD")
        {
            target.password(password);
        }
        return Ok(target);
    }
    let named = match (&arguments.host, arguments.port) {
        (Some(host), Some(port)) => (host.clone(), port),
        (host, port) => {
            let config = config::Config::load(arguments.config.as_deref(), config::environment())?;
            let listen = config.pg.listen;
            let ip =
                if listen.ip().is_unspecified() { "127.0.0.1".to_owned() } else { listen.ip().to_string() };
            (host.clone().unwrap_or(ip), port.unwrap_or_else(|| listen.port()))
        }
    };
    if named.1 == 0 {
        return Err(Failure::new(
            CONFIGURATION,
            "pg.listen has port 0, so the port is known only to the server; name it with --port",
        )
        .into());
    }
    Ok(local(&named.0, named.1))
}

/// A name, quoted for SQL.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, quoted for SQL.
pub(crate) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_is_completed_and_its_password_is_not_told() {
        let arguments =
            ServerArguments { url: Some("postgres://:secret@localhost:7".into()), ..Default::default() };
        let found = target(&arguments).unwrap();
        assert_eq!((found.get_user(), found.get_dbname()), (Some("stratus"), Some("stratus")));
        assert_eq!(place(&found), "localhost:7");
        let broken =
            ServerArguments { url: Some("postgres://u:secret@h:port/".into()), ..Default::default() };
        assert!(!format!("{:#}", target(&broken).unwrap_err()).contains("secret"));
    }

    #[test]
    fn quoting() {
        assert_eq!(quoted_name("a\"b"), "\"a\"\"b\"");
        assert_eq!(quoted_text("it's"), "'it''s'");
    }
}
