//! The address of a server.

use std::time::Duration;

use redis::{Client, ConnectionAddr, IntoConnectionInfo};

use crate::MapError;

/// How long an answer may take unless the address says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address taken apart. It is never shown: the client in it knows the password.
pub(super) struct Address {
    pub(super) client: Client,
    /// Host, port and database.
    pub(super) server: String,
    pub(super) patience: Duration,
}

impl Address {
    pub(super) fn of(url: &str) -> Result<Self, MapError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut patience = PATIENCE;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let ms = pair.strip_prefix("timeout_ms=").and_then(|ms| ms.parse().ok());
            let ms = ms.filter(|ms| (1..=600_000).contains(ms));
            let known = "the one parameter is timeout_ms, a number from 1 to 600000";
            patience = Duration::from_millis(ms.ok_or_else(|| wrong(known))?);
        }
        let form = "it must look like redis://:password@host:6379/0; special characters of a password are percent-encoded";
        if !base.starts_with("redis://") {
            return Err(wrong(form));
        }
        // What the parser says may repeat the address, and with it the password.
        let info = base.into_connection_info().map_err(|_| wrong(form))?;
        let server = match (info.addr(), info.redis_settings().db()) {
            (ConnectionAddr::Tcp(host, port), 0) => format!("{host}:{port}"),
            (ConnectionAddr::Tcp(host, port), db) => format!("{host}:{port}/{db}"),
            _ => return Err(wrong(form)),
        };
        let client = Client::open(info).map_err(|error| wrong(&format!("{:?}", error.kind())))?;
        Ok(Self { client, server, patience })
    }
}

fn wrong(cause: &str) -> MapError {
    MapError::Address(cause.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::of("redis://:s%40cret@host:7000/2?timeout_ms=250").unwrap();
        assert_eq!((address.server.as_str(), address.patience), ("host:7000/2", Duration::from_millis(250)));
        let address = Address::of("redis://host").unwrap();
        assert_eq!((address.server.as_str(), address.patience), ("host:6379", PATIENCE));
    }

    #[test]
    fn a_wrong_address_does_not_repeat_its_password() {
        for wrong in [
            "http://:s3cret@host",
            "rediss://:s3cret@host",
            "redis://:s3cret@host:x",
            "redis://:s3cret@host/x",
            "redis://:s3cret@host?timeout_ms=0",
            "redis://:s3cret@host?s3cret",
        ] {
            let error = Address::of(wrong).map(|address| address.server).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{wrong}: {error:?}");
        }
    }
}
