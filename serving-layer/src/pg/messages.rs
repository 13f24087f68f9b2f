//! What clients send, read without trust: a length, a count or a text that lies ends the connection, never the
//! process.

use bytes::{Buf, Bytes, BytesMut};
use stratus_sql::SqlError;

use super::errors::error;

/// The largest message that is taken from a client.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The largest message that is taken before the connection is established, as in PostgreSQL.
const MAX_STARTUP_BYTES: usize = 10_000;

/// The SQLSTATE of a text that is not UTF-8.
pub(crate) const NOT_UTF8: &str = "22021";

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// May we encrypt? (It is asked again after a refusal.)
    Encrypt,
    /// Stop what another connection runs.
    Cancel {
        /// Whose.
        process_id: i32,
        /// The proof that the asker may.
        secret: i32,
    },
    /// Let us begin.
    Start {
        /// Major and minor version of the protocol.
        version: (u16, u16),
        /// Names and values: `user`, `database`, settings.
        parameters: Vec<(String, String)>,
    },
}

/// What a client asks once it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Run this text, which may hold several statements.
    Query(String),
    /// Prepare a statement under a name, with the types of some of its parameters.
    Parse {
        /// The statement's name; the empty name is the unnamed statement.
        name: String,
        /// The statement.
        text: String,
        /// Type ids, 0 where the client leaves it open.
        types: Vec<u32>,
    },
    /// Make a portal of a statement and values.
    Bind {
        /// The portal's name.
        portal: String,
        /// The statement's name.
        statement: String,
        /// Formats of the values: none, one for all, or one for each.
        formats: Vec<i16>,
        /// The values.
        values: Vec<Option<Bytes>>,
        /// Formats of the answer's columns.
        results: Vec<i16>,
    },
    /// What does this take and give?
    Describe(Target),
    /// Run a portal, at most this many rows (0: all).
    Execute {
        /// The portal's name.
        portal: String,
        /// How many rows.
        rows: u32,
    },
    /// Forget this.
    Close(Target),
    /// Send what there is.
    Flush,
    /// The end of a series: an error is over, and so is a transaction of its own.
    Sync,
    /// Good bye.
    Terminate,
    /// A password or a part of a COPY, which nobody has asked for.
    Unasked,
    /// A message whose text is not UTF-8; whether it is one of a series that ends with `Sync`.
    Garbled {
        /// Not a `Query`.
        in_series: bool,
    },
}

/// A statement or a portal, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

fn malformed(what: &str) -> SqlError {
    error("08P01", format!("malformed message: {what}"))
}

/// Takes the first message of a connection out of what was received, once it is there as a whole.
///
/// # Errors
/// 08P01 for what is none.
pub(crate) fn opening(buffer: &mut BytesMut) -> Result<Option<Opening>, SqlError> {
    let Some(length) = buffer.first_chunk::<4>().map(|four| u32::from_be_bytes(*four)) else {
        return Ok(None);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(8..=MAX_STARTUP_BYTES).contains(&length) {
        return Err(malformed("the length of the startup packet"));
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = Body(buffer.split_to(length).freeze().split_off(4));
    match body.int()? {
        SSL_REQUEST | GSS_REQUEST => Ok(Some(Opening::Encrypt)),
        // A longer secret is that of a newer protocol, which was never handed out here.
        CANCEL_REQUEST => Ok(Some(Opening::Cancel { process_id: body.int()?, secret: body.int()? })),
        version => {
            let version = version.cast_unsigned();
            let version = ((version >> 16) as u16, (version & 0xffff) as u16);
            let mut parameters = Vec::new();
            if version.0 == 3 {
                loop {
                    let name = body.text()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.push((name, body.text()?));
                }
            }
            Ok(Some(Opening::Start { version, parameters }))
        }
    }
}

/// Takes the client's part of an authentication out of what was received, once it is there as a whole.
///
/// # Errors
/// 08P01 for what is none.
pub(crate) fn authentication(buffer: &mut BytesMut) -> Result<Option<Bytes>, SqlError> {
    let Some([kind, length @ ..]) = buffer.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if *kind != b'p' || !(4..=MAX_STARTUP_BYTES).contains(&length) {
        return Err(malformed("a part of the authentication was expected"));
    }
    if buffer.len() < length + 1 {
        return Ok(None);
    }
    Ok(Some(buffer.split_to(length + 1).freeze().split_off(5)))
}

/// What a client begins SASL with: the mechanism's name and its first message.
///
/// # Errors
/// 08P01 for what is none.
pub(crate) fn sasl_begin(body: Bytes) -> Result<(String, Bytes), SqlError> {
    let mut body = Body(body);
    let mechanism = body.text()?;
    let first = body.sized()?.ok_or_else(|| malformed("there is no SASL message in it"))?;
    Ok((mechanism, first))
}

/// Takes the next message out of what was received, once it is there as a whole.
///
/// # Errors
/// 08P01 for what is none: the two sides no longer agree where messages begin, and the connection must end.
pub(crate) fn message(buffer: &mut BytesMut) -> Result<Option<Message>, SqlError> {
    let Some([kind, length @ ..]) = buffer.first_chunk::<5>() else {
        return Ok(None);
    };
    let kind = *kind;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length < 4 {
        return Err(malformed("its length"));
    }
    if length > MAX_MESSAGE_BYTES {
        return Err(error(
            "08P01",
            format!("a message of {length} bytes is larger than {MAX_MESSAGE_BYTES}"),
        ));
    }
    if buffer.len() < length + 1 {
        // All of it at once, not doubling by doubling.
        buffer.reserve(length + 1 - buffer.len());
        return Ok(None);
    }
    match body_of(kind, Body(buffer.split_to(length + 1).freeze().split_off(5))) {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.sqlstate == NOT_UTF8 => Ok(Some(Message::Garbled { in_series: kind != b'Q' })),
        Err(error) => Err(error),
    }
}

fn body_of(kind: u8, mut body: Body) -> Result<Message, SqlError> {
    Ok(match kind {
        b'Q' => Message::Query(body.text()?),
        b'P' => {
            let (name, text) = (body.text()?, body.text()?);
            Message::Parse { name, text, types: body.list(|body| body.int().map(i32::cast_unsigned))? }
        }
        b'B' => Message::Bind {
            portal: body.text()?,
            statement: body.text()?,
            formats: body.list(Body::short)?,
            values: body.list(Body::sized)?,
            results: body.list(Body::short)?,
        },
        b'D' => Message::Describe(body.target()?),
        b'E' => {
            let portal = body.text()?;
            // Fewer than none is all of them.
            Message::Execute { portal, rows: u32::try_from(body.int()?).unwrap_or(0) }
        }
        b'C' => Message::Close(body.target()?),
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'p' | b'd' | b'c' | b'f' => Message::Unasked,
        b'F' => return Err(error("0A000", "the function call message is not supported")),
        other => {
            return Err(error("08P01", format!("invalid frontend message type {other}")));
        }
    })
}

/// The rest of a message's body.
struct Body(Bytes);

impl Body {
    fn short(&mut self) -> Result<i16, SqlError> {
        self.0.try_get_i16().map_err(|_| malformed("it ends too early"))
    }

    fn int(&mut self) -> Result<i32, SqlError> {
        self.0.try_get_i32().map_err(|_| malformed("it ends too early"))
    }

    fn text(&mut self) -> Result<String, SqlError> {
        let end = self.0.iter().position(|b| *b == 0).ok_or_else(|| malformed("a text without an end"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(error(NOT_UTF8, "invalid byte sequence for encoding \"UTF8\"")),
        }
    }

    fn sized(&mut self) -> Result<Option<Bytes>, SqlError> {
        match usize::try_from(self.int()?) {
            Err(_) => Ok(None),
            Ok(size) if size <= self.0.len() => Ok(Some(self.0.split_to(size))),
            Ok(_) => Err(malformed("a value is longer than its message")),
        }
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let count = self.short()?.cast_unsigned();
        (0..count).map(|_| item(self)).collect()
    }

    fn target(&mut self) -> Result<Target, SqlError> {
        let kind = self.0.try_get_u8().map_err(|_| malformed("it ends too early"))?;
        match kind {
            b'S' => Ok(Target::Statement(self.text()?)),
            b'P' => Ok(Target::Portal(self.text()?)),
            other => Err(malformed(&format!("target {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&[kind]);
        buffer.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        buffer.extend_from_slice(body);
        buffer
    }

    #[test]
    fn a_message_is_taken_when_it_is_there_as_a_whole() {
        let whole = framed(b'Q', b"select 1\0");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(message(&mut part).unwrap(), None);
            assert_eq!(part.len(), cut);
        }
        let mut buffer = whole.clone();
        buffer.extend_from_slice(&framed(b'S', b""));
        assert_eq!(message(&mut buffer).unwrap(), Some(Message::Query("select 1".into())));
        assert_eq!(message(&mut buffer).unwrap(), Some(Message::Sync));
        assert!(buffer.is_empty());
    }

    #[test]
    fn bind_is_read_in_full() {
        let body = b"p\0s\0\x00\x01\x00\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00\x02hi\x00\x00";
        let expected = Message::Bind {
            portal: "p".into(),
            statement: "s".into(),
            formats: vec![1],
            values: vec![None, Some(Bytes::from_static(b"hi"))],
            results: vec![],
        };
        assert_eq!(message(&mut framed(b'B', body)).unwrap(), Some(expected));
    }

    #[test]
    fn a_lying_message_is_an_error() {
        for (kind, body) in [
            (b'Q', &b"no end"[..]),
            (b'B', b"p\0s\0\x00\x00\x00\x01\x00\x00\x00\x09hi\x00\x00"),
            (b'P', b"n\0t\0\xff\xff"),
            (b'D', b"X\0"),
            (b'E', b"p\0\x00"),
            (b'?', b""),
        ] {
            assert_eq!(message(&mut framed(kind, body)).unwrap_err().sqlstate, "08P01", "{kind}");
        }
        let mut huge = BytesMut::from(&b"Q\x7f\xff\xff\xff"[..]);
        assert_eq!(message(&mut huge).unwrap_err().sqlstate, "08P01");
        let garbled = message(&mut framed(b'Q', b"\xff\0")).unwrap();
        assert_eq!(garbled, Some(Message::Garbled { in_series: false }));
    }

    #[test]
    fn the_openings() {
        let opening_of = |body: &[u8]| {
            let mut buffer = BytesMut::new();
            buffer.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            buffer.extend_from_slice(body);
            opening(&mut buffer)
        };
        assert_eq!(opening_of(&SSL_REQUEST.to_be_bytes()).unwrap(), Some(Opening::Encrypt));
        let cancel = [CANCEL_REQUEST, 7, -9].map(i32::to_be_bytes).concat();
        assert_eq!(opening_of(&cancel).unwrap(), Some(Opening::Cancel { process_id: 7, secret: -9 }));
        let start = [&0x0003_0002_i32.to_be_bytes()[..], b"user\0ada\0\0"].concat();
        let parameters = vec![("user".to_owned(), "ada".to_owned())];
        assert_eq!(opening_of(&start).unwrap(), Some(Opening::Start { version: (3, 2), parameters }));
        assert_eq!(
            opening_of(b"GET / HTTP/1.1").unwrap(),
            Some(Opening::Start { version: (0x4745, 0x5420), parameters: vec![] })
        );
        assert!(opening(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = message(&mut framed(kind, &body));
            let _ = opening(&mut BytesMut::from(&body[..]));
        }
    }
}
