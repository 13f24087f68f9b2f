//! Names of keys and fields, and what the functions answer. `docs/redis.md` shows the layout to people.

use redis::Value;
use stratus_seam::ids::{Attempt, EpochNo, Generation, ShardNo, SourceId, Token, TxId, ViewId};
use stratus_seam::shard::{Scope, ShardMeta, Stand};
use uuid::Uuid;

/// Something in the server is not what was written: the cause, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

pub(super) type Read<T> = Result<T, Unreadable>;

/// `{ns:src}:<name>`. What is in braces decides the slot: all of a source's ledger lies together.
pub(super) fn of_source(namespace: &str, source: SourceId, name: &str) -> String {
    format!("{{{namespace}:{source}}}:{name}")
}

/// The key of a shard's record, `{ns:src:i}:meta`. The functions derive the shard's other keys from it.
pub(super) fn of_shard(namespace: &str, source: SourceId, shard: ShardNo) -> String {
    format!("{{{namespace}:{source}:{shard}}}:meta")
}

/// A pattern that matches every key of a source.
pub(super) fn all_of(namespace: &str, source: SourceId) -> String {
    format!("{{{namespace}:{source}[:}}]*")
}

pub(super) fn scope_name(scope: Scope) -> String {
    format!("{}:{}", scope.view, scope.epoch)
}

pub(super) fn scope_in(name: &str) -> Read<Scope> {
    let scope = name.split_once(':').and_then(|(view, epoch)| {
        Some(Scope { view: ViewId(uuid(view)?), epoch: epoch.parse::<EpochNo>().ok()? })
    });
    scope.ok_or_else(|| Unreadable(format!("{name:?} is no view and epoch")))
}

fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

fn token_in(text: &str) -> Option<Token> {
    let (counter, id) = text.split_once('-')?;
    Some(Token { counter: counter.parse().ok()?, id: uuid(id)? })
}

fn field<T>(name: &str, text: &str, read: impl FnOnce(&str) -> Option<T>) -> Read<T> {
    read(text).ok_or_else(|| Unreadable(format!("the field {name} is {text:?}")))
}

/// Generation, token and txid.
pub(super) fn stand_of(fields: &[Value]) -> Read<Stand> {
    let [generation, token, txid] = fields else { return Err(other_shape()) };
    Ok(Stand {
        generation: generation_in(&text(generation)?)?,
        token: token_of(&text(token)?)?,
        txid: txid_of(&text(txid)?)?,
    })
}

pub(super) fn generation_in(name: &str) -> Read<Generation> {
    field("generation", name, |name| uuid(name).map(Generation))
}

pub(super) fn token_of(name: &str) -> Read<Token> {
    field("token", name, token_in)
}

pub(super) fn txid_of(name: &str) -> Read<TxId> {
    field("txid", name, |name| name.parse().ok())
}

/// A shard's record from the fields and values of its hash.
pub(super) fn meta_of(fields: &[Value]) -> Read<ShardMeta> {
    let (mut generation, mut token, mut txid, mut attempt) = (None, None, None, None);
    let (mut rows, mut floors) = (Vec::new(), Vec::new());
    for pair in fields.chunks(2) {
        let [name, value] = pair else { return Err(other_shape()) };
        let (name, value) = (text(name)?, text(value)?);
        match name.as_str() {
            "generation" => generation = Some(generation_in(&value)?),
            "token" => token = Some(token_of(&value)?),
            "txid" => txid = Some(txid_of(&value)?),
            "attempt" if value.is_empty() => {}
            "attempt" => attempt = Some(field(&name, &value, |id| uuid(id).map(Attempt))?),
            _ => match name.split_once(':') {
                Some(("rows", scope)) => {
                    rows.push((scope_in(scope)?, field(&name, &value, |rows| rows.parse().ok())?));
                }
                Some(("floor", view)) => {
                    let view = field(&name, view, |view| uuid(view).map(ViewId))?;
                    floors.push((view, field(&name, &value, |floor| floor.parse().ok())?));
                }
                // Fields of a later version.
                _ => {}
            },
        }
    }
    let (Some(generation), Some(token), Some(txid)) = (generation, token, txid) else {
        return Err(Unreadable("a shard's record lacks generation, token or txid".into()));
    };
    Ok(ShardMeta {
        generation,
        token,
        txid,
        attempt,
        rows: rows.into_iter().collect(),
        floors: floors.into_iter().collect(),
    })
}

/// A scope's undo by one txid, as one value: `[["key","state before"],["key",null]]`.
pub(super) fn pack<'a>(
    undo: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&undo.collect::<Vec<_>>())
}

pub(super) fn unpack(packed: &str) -> Read<Vec<(String, Option<String>)>> {
    serde_json::from_str(packed).map_err(|error| Unreadable(format!("an undo cannot be read: {error}")))
}

pub(super) fn other_shape() -> Unreadable {
    Unreadable("an answer has another shape than its function gives".into())
}

pub(super) fn text(value: &Value) -> Read<String> {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes.clone()).map_err(|_| Unreadable("a text is not UTF-8".into()))
        }
        Value::SimpleString(text) => Ok(text.clone()),
        Value::Okay => Ok("OK".into()),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(other_shape()),
    }
}

pub(super) fn optional(value: &Value) -> Read<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        some => text(some).map(Some),
    }
}

pub(super) fn count(value: &Value) -> Read<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| other_shape()),
        _ => Err(other_shape()),
    }
}

pub(super) fn array(value: &Value) -> Read<&[Value]> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(other_shape()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let scope = Scope { view: ViewId::new(), epoch: 70_000 };
        assert_eq!(scope_in(&scope_name(scope)), Ok(scope));
        let token = Token::after(41);
        assert_eq!(token_of(&token.to_string()), Ok(token));
        assert!(scope_in("7").is_err() && token_of("7").is_err() && txid_of("-1").is_err());
    }

    #[test]
    fn undo_comes_back_as_it_was_packed() {
        let undo = [("", None), ("a\0\"", Some("")), ("ключ", Some("[1,\"é\"]"))];
        let packed = pack(undo.into_iter()).unwrap();
        let want = undo.map(|(key, before)| (key.to_owned(), before.map(str::to_owned)));
        assert_eq!(unpack(&packed).unwrap(), want);
        assert!(unpack(&packed[1..]).is_err());
    }

    #[test]
    fn a_record_without_its_token_is_unreadable() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let (generation, token) = (Generation::new(), Token::after(0));
        let mut fields = vec![text("generation"), text(&generation.to_string()), text("txid"), text("4")];
        assert!(meta_of(&fields).is_err());
        fields.extend([text("token"), text(&token.to_string()), text("attempt"), text("")]);
        assert_eq!(meta_of(&fields), Ok(ShardMeta { txid: 4, ..ShardMeta::empty(generation, token) }));
    }
}
