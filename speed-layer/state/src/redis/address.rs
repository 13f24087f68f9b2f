//! The address of a server, with our own parameters in it.

use std::path::PathBuf;
use std::time::Duration;

use redis::{Client, ConnectionAddr, IntoConnectionInfo, TlsCertificates};

use super::trouble::OpenError;

/// How long an answer may take unless the address says otherwise. Long enough for a large page while the server
/// writes a snapshot, short enough that a dead server is noticed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first part of every key unless the address says otherwise.
const NAMESPACE: &str = "stratus";

/// An address taken apart.
pub(super) struct Address {
    url: String,
    authority: Option<PathBuf>,
    /// The first part of every key.
    pub(super) namespace: String,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// Host, port and database, without user and password.
    pub(super) server: String,
}

impl Address {
    /// Takes `redis://user:password@host:port/db?namespace=stratus&timeout_ms=5000` apart; `rediss` for TLS, with
    /// `cafile=<path>` for certificates that the system does not trust; `unix://<path>` for a socket.
    pub(super) fn of(url: &str) -> Result<Self, OpenError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (query, fragment) = query.split_once('#').map_or((query, None), |(q, f)| (q, Some(f)));
        let (mut namespace, mut patience, mut authority) = (NAMESPACE.to_owned(), PATIENCE, None);
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("namespace", name)) => namespace = name.to_owned(),
                Some(("timeout_ms", ms)) => {
                    let ms = ms.parse().ok().filter(|ms| (1..=600_000).contains(ms));
                    let ms = ms.ok_or_else(|| address("timeout_ms is a number from 1 to 600000"))?;
                    patience = Duration::from_millis(ms);
                }
                Some(("cafile", path)) => authority = Some(PathBuf::from(path)),
                _ => others.push(pair),
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if namespace.is_empty() || !namespace.chars().all(plain) {
            return Err(address("the namespace consists of letters, digits, '_', '-' and '.'"));
        }
        let mut url = base.to_owned();
        for (mark, part) in
            [('?', Some(others.join("&")).filter(|q| !q.is_empty())), ('#', fragment.map(str::to_owned))]
        {
            if let Some(part) = part {
                url.push(mark);
                url.push_str(&part);
            }
        }
        // What the parser says may repeat the address, and with it the password.
        let info = url.as_str().into_connection_info().map_err(|_| {
            address("it must look like redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path; special characters of a password are percent-encoded")
        })?;
        let server = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}")
            }
            other => other.to_string(),
        };
        let server = match info.redis_settings().db() {
            0 => server,
            db => format!("{server}/{db}"),
        };
        Ok(Self { url, authority, namespace, patience, server })
    }

    /// A client for it.
    pub(super) fn client(&self) -> Result<Client, OpenError> {
        // TLS panics without a provider if several were built in. An error says that the process has chosen one.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let made = match &self.authority {
            None => Client::open(self.url.as_str()),
            Some(path) => {
                let cause = |error| address(&format!("cafile {} cannot be read: {error}", path.display()));
                let root_cert = Some(std::fs::read(path).map_err(cause)?);
                Client::build_with_tls(self.url.as_str(), TlsCertificates { client_tls: None, root_cert })
            }
        };
        made.map_err(|error| address(&format!("{:?}", error.kind())))
    }
}

fn address(cause: &str) -> OpenError {
    OpenError::Address(cause.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_parameters_are_taken_out() {
        let address = Address::of("redis://me:s%40cret@host:7000/2?namespace=a.b&timeout_ms=250").unwrap();
        assert_eq!((address.namespace.as_str(), address.server.as_str()), ("a.b", "host:7000/2"));
        assert_eq!(address.patience, Duration::from_millis(250));
        assert_eq!(address.url, "redis://me:s%40cret@host:7000/2");
        let address = Address::of("rediss://host#insecure").unwrap();
        assert_eq!((address.server.as_str(), address.namespace.as_str()), ("host:6379", "stratus"));
    }

    #[test]
    fn a_wrong_address_does_not_repeat_its_password() {
        let wrong = [
            "http://me:s3cret@host",
            "redis://me:s3cret@host:x",
            "redis://me:s3cret@h?namespace={",
            "redis://:s3cret@h?timeout_ms=0",
        ];
        for wrong in wrong {
            let error = Address::of(wrong).map(|address| address.server).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
