//! How a client gets in: the refusal of encryption, the startup message, the greeting.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pgwire::messages::PgWireBackendMessage as Reply;
use pgwire::messages::response::ReadyForQuery;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use stratus_sql::SqlError;

use super::backends::Backends;
use super::errors::error;
use super::messages::{self, Opening};
use super::scram::{self, Exchange};
use super::settings::Parameters;
use super::transaction::Transaction;
use super::users::Users;
use super::wire::Wire;
use crate::service::Notice;

/// The protocol that is spoken, as it is written in a startup message.
const PROTOCOL_3_0: i32 = 3 << 16;

/// What a client has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The name that it gives itself.
    pub(crate) user: String,
    /// The database that it wants.
    pub(crate) database: String,
    /// The parameters of its session.
    pub(crate) settings: BTreeMap<String, String>,
    /// What it has asked of the protocol that is not offered; `None` if it speaks exactly what is offered.
    negotiate: Option<Vec<String>>,
}

/// How an opening ends.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A client wants to get in.
    Request(Request),
    /// There is nothing more to do.
    Closed,
    /// The client must be refused.
    Refused(SqlError),
}

/// Hears what a new connection wants, up to its startup message. Cancel requests are carried out.
///
/// # Errors
/// If the connection breaks.
pub(crate) async fn open(wire: &mut Wire, backends: &Arc<Backends>) -> io::Result<Opened> {
    // A client asks for TLS and for GSSAPI once each; one that goes on asking is none.
    let mut refusals = 0;
    loop {
        match messages::opening(&mut wire.inbound) {
            Err(malformed) => return Ok(Opened::Refused(malformed)),
            Ok(None) => {
                if !wire.receive().await? {
                    return Ok(Opened::Closed);
                }
            }
            Ok(Some(Opening::Encrypt)) if refusals < 4 => {
                refusals += 1;
                wire.send_bytes(b"N");
                wire.flush().await?;
            }
            Ok(Some(Opening::Encrypt)) => return Ok(Opened::Closed),
            Ok(Some(Opening::Cancel { process_id, secret })) => {
                backends.cancel(process_id, secret);
                return Ok(Opened::Closed);
            }
            Ok(Some(Opening::Start { version, parameters })) => {
                return Ok(match request(version, parameters) {
                    Ok(request) => Opened::Request(request),
                    Err(refused) => Opened::Refused(refused),
                });
            }
        }
    }
}

/// Reads a startup message.
fn request(version: (u16, u16), parameters: Vec<(String, String)>) -> Result<Request, SqlError> {
    let (major, minor) = version;
    if major != 3 {
        let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
        return Err(error("0A000", message));
    }
    let mut settings = BTreeMap::new();
    let (mut user, mut database) = (None, None);
    let mut not_offered = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "user" => user = Some(value),
            "database" => database = Some(value),
            "options" => settings.extend(command_line_options(&value)?),
            "replication" if !matches!(value.as_str(), "off" | "false" | "no" | "0") => {
                return Err(error("0A000", "replication connections are not supported"));
            }
            "replication" => {}
            extension if extension.starts_with("_pq_.") => not_offered.push(name),
            _ => {
                settings.insert(name, value);
            }
        }
    }
    let user = user.filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| error("28000", "no PostgreSQL user name specified in startup packet"))?;
    let database = database.filter(|database| !database.is_empty()).unwrap_or_else(|| user.clone());
    let negotiate = (minor > 0 || !not_offered.is_empty()).then_some(not_offered);
    Ok(Request { user, database, settings, negotiate })
}

/// Settings as a server's command line has them, which is how `PGOPTIONS` sends them: `-c name=value`.
fn command_line_options(options: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match (c, words.last_mut()) {
            ('\\', Some(word)) => word.extend(chars.next()),
            (c, _) if c.is_whitespace() => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let invalid = || error("42601", format!("invalid command-line argument for server process: {word}"));
        let assignment = match word.as_str() {
            "-c" => words.next().ok_or_else(invalid)?,
            _ => match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
                Some(assignment) => assignment.to_owned(),
                None => return Err(invalid()),
            },
        };
        let (name, value) = assignment.split_once('=').ok_or_else(invalid)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// Lets a client prove that it knows its user's password. None: it has closed the connection.
///
/// # Errors
/// If the connection breaks. A refusal is the inner error: 28P01 for a wrong password and for a user that does not
/// exist.
pub(crate) async fn authenticate(
    wire: &mut Wire,
    user: &str,
    users: &Users,
) -> io::Result<Option<Result<(), SqlError>>> {
    wire.send(&Reply::Authentication(Authentication::SASL(vec![scram::MECHANISM.to_owned()])))?;
    wire.flush().await?;
    let Some(first) = answer(wire).await? else { return Ok(None) };
    let nonce = STANDARD.encode(rand::random::<[u8; 18]>());
    let begun = first.and_then(messages::sasl_begin).and_then(|(mechanism, first)| {
        if mechanism != scram::MECHANISM {
            return Err(error("08P01", format!("the mechanism {mechanism:?} was not offered")));
        }
        Exchange::begin(&first, users.find(user), &nonce)
    });
    let (exchange, reply) = match begun {
        Ok(begun) => begun,
        Err(refused) => return Ok(Some(Err(refused))),
    };
    wire.send(&Reply::Authentication(Authentication::SASLContinue(reply.into())))?;
    wire.flush().await?;
    let Some(last) = answer(wire).await? else { return Ok(None) };
    Ok(Some(match last.and_then(|last| exchange.end(&last)) {
        Ok(Some(reply)) => {
            wire.send(&Reply::Authentication(Authentication::SASLFinal(reply.into())))?;
            Ok(())
        }
        Ok(None) => Err(error("28P01", format!("password authentication failed for user \"{user}\""))),
        Err(refused) => Err(refused),
    }))
}

/// The client's next part of the authentication; none at the end of the connection.
async fn answer(wire: &mut Wire) -> io::Result<Option<Result<Bytes, SqlError>>> {
    loop {
        match messages::authentication(&mut wire.inbound) {
            Ok(Some(part)) => return Ok(Some(Ok(part))),
            Ok(None) if wire.receive().await? => {}
            Ok(None) => return Ok(None),
            Err(refused) => return Ok(Some(Err(refused))),
        }
    }
}

/// Greets a client that is let in: it may go on.
///
/// # Errors
/// If the connection breaks.
pub(crate) async fn greet(
    wire: &mut Wire,
    request: &Request,
    parameters: &mut Parameters,
    notices: &[Notice],
    process_id: i32,
    secret: i32,
) -> io::Result<()> {
    if let Some(not_offered) = &request.negotiate {
        let negotiate = NegotiateProtocolVersion::new(PROTOCOL_3_0, not_offered.clone());
        wire.send(&Reply::NegotiateProtocolVersion(negotiate))?;
    }
    wire.send(&Reply::Authentication(Authentication::Ok))?;
    for (name, value) in parameters.news() {
        wire.send(&Reply::ParameterStatus(ParameterStatus::new(name.to_owned(), value)))?;
    }
    wire.send(&Reply::BackendKeyData(BackendKeyData::new(process_id, SecretKey::I32(secret))))?;
    for told in notices {
        wire.send(&Reply::NoticeResponse(super::errors::notice(told)))?;
    }
    wire.send(&Reply::ReadyForQuery(ReadyForQuery::new(Transaction::Idle.status())))?;
    wire.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(parameters: &[(&str, &str)]) -> Result<Request, SqlError> {
        request((3, 0), parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_client_without_a_database_asks_for_one_of_its_own_name() {
        assert_eq!(asked(&[("user", "ada")]).unwrap().database, "ada");
        assert_eq!(asked(&[("user", "ada"), ("database", "stratus")]).unwrap().database, "stratus");
        assert_eq!(asked(&[("database", "stratus")]).unwrap_err().sqlstate, "28000");
    }

    #[test]
    fn options_are_settings() {
        let options = "-c statement_timeout=5s -cjit=off --search-path=a\\ b";
        let request = asked(&[("user", "ada"), ("options", options), ("application_name", "x")]).unwrap();
        let settings: Vec<_> = request.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected =
            [("application_name", "x"), ("jit", "off"), ("search_path", "a b"), ("statement_timeout", "5s")];
        assert_eq!(settings, expected);
        assert_eq!(asked(&[("user", "ada"), ("options", "-x")]).unwrap_err().sqlstate, "42601");
    }

    #[test]
    fn a_newer_minor_protocol_is_negotiated_and_another_major_refused() {
        let newer =
            request((3, 2), vec![("user".into(), "a".into()), ("_pq_.x".into(), "1".into())]).unwrap();
        assert_eq!(newer.negotiate, Some(vec!["_pq_.x".to_owned()]));
        assert_eq!(asked(&[("user", "a")]).unwrap().negotiate, None);
        assert_eq!(request((2, 0), vec![]).unwrap_err().sqlstate, "0A000");
        assert_eq!(asked(&[("user", "a"), ("replication", "true")]).unwrap_err().sqlstate, "0A000");
    }
}
