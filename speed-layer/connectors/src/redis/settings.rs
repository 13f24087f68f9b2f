//! How a server is reached.

use std::{fmt, sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, TlsCertificates};

use super::{connection::Connection, error::RedisBoltError};

/// How long an answer may take unless the address says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// How a Redis server is reached. Neither its text nor its errors hold the password.
#[derive(Clone)]
pub struct RedisSettings {
    client: Client,
    timeout: Duration,
    server: Arc<str>,
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings").field("server", &self.server).field("timeout", &self.timeout).finish()
    }
}

impl RedisSettings {
    /// Takes an address, `redis://user:password@host:port/database`, or `rediss://` for TLS. Special characters of a
    /// password are percent-encoded. Parameters: `timeout_ms` is how long the answers to the commands of one batch may
    /// take, 5,000 unless given, which should be well below the topology's message time-out; `cafile` is a file of
    /// certificates (PEM) to trust instead of the system's. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`RedisBoltError::Address`], without the address, if it is none or the file cannot be read.
    pub fn new(url: &str) -> Result<Self, RedisBoltError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (query, fragment) = query.split_once('#').map_or((query, None), |(q, f)| (q, Some(f)));
        let (mut timeout, mut authority, mut others) = (TIMEOUT, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("timeout_ms", ms)) => {
                    let ms = ms.parse().ok().filter(|ms| (1..=600_000).contains(ms));
                    timeout = Duration::from_millis(
                        ms.ok_or_else(|| address("timeout_ms is a number from 1 to 600000"))?,
                    );
                }
                Some(("cafile", path)) => authority = Some(path),
                _ => others.push(pair),
            }
        }
        let mut url = base.to_owned();
        if !others.is_empty() {
            url = format!("{url}?{}", others.join("&"));
        }
        if let Some(fragment) = fragment {
            url = format!("{url}#{fragment}");
        }
        // What the parser says may repeat the address, and with it the password.
        let info = url.as_str().into_connection_info().map_err(|_| {
            address(
                "it must look like redis://user:password@host:6379/0, or rediss:// for TLS; special characters of a \
                 password are percent-encoded",
            )
        })?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}")
            }
            other => other.to_string(),
        };
        let server = match info.redis_settings().db() {
            0 => place,
            database => format!("{place}/{database}"),
        };
        // TLS panics without a provider if several were built in. An error says that the process has chosen one.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let client = match authority {
            None => Client::open(url),
            Some(path) => {
                let cause = |error| address(&format!("cafile {path} cannot be read: {error}"));
                let root_cert = Some(std::fs::read(path).map_err(cause)?);
                Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })
            }
        };
        let client = client.map_err(|error| address(&format!("{:?}", error.kind())))?;
        Ok(Self { client, timeout, server: server.into() })
    }

    /// Host, port and, unless it is 0, database, without user and password.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// How long the answers to the commands of one batch may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects, logs in and lets go again: for a program that would rather end than wait for a server that it cannot
    /// use. Bolts connect by themselves, and try again.
    ///
    /// # Errors
    ///
    /// [`RedisBoltError::Connect`] if the server is not reached, refuses user and password, or is not ready.
    pub async fn check(&self) -> Result<(), RedisBoltError> {
        Connection::new(self.clone()).open().await
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn connection_config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT.min(self.timeout)))
            .set_response_timeout(Some(self.timeout))
    }
}

fn address(cause: &str) -> RedisBoltError {
    RedisBoltError::Address(cause.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_without_its_password() {
        let settings = RedisSettings::new("redis://me:s3cret%40@host:7000/2?timeout_ms=250").unwrap();
        assert_eq!((settings.server(), settings.timeout()), ("host:7000/2", Duration::from_millis(250)));
        assert_eq!(format!("{settings:?}"), "RedisSettings { server: \"host:7000/2\", timeout: 250ms }");
        let settings = RedisSettings::new("rediss://:s3cret@host#insecure").unwrap();
        assert_eq!((settings.server(), settings.timeout()), ("host:6379", TIMEOUT));
    }

    #[test]
    fn a_wrong_address_does_not_repeat_its_password() {
        let wrong = [
            "http://me:s3cret@host",
            "redis://me:s3cret@host:x",
            "redis://:s3cret@h?timeout_ms=0",
            "rediss://:s3cret@h?cafile=/nowhere/at/all",
            "s3cret",
        ];
        for wrong in wrong {
            let error = RedisSettings::new(wrong).unwrap_err();
            assert!(matches!(error, RedisBoltError::Address(_)));
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
