//! The ledger of one source in the server.

use async_trait::async_trait;
use redis::Value;
use serde::de::DeserializeOwned;
use stratus_seam::ids::{Token, TxId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::store::{CutRequest, Durability, LedgerStore, LedgerWrite, Pin, StoreError, TxnChanges};
use uuid::Uuid;

use super::RedisSource;
use super::connections::Lane;
use super::layout::{self, array, optional, text};
use super::trouble::Trouble;

#[async_trait]
impl LedgerStore for RedisSource {
    async fn read(&self) -> Result<Option<Ledger>, StoreError> {
        let read = async {
            let record = optional(&self.of_source("ledger", "read", &[]).await?)?;
            Ok(record.map(|record| serde_json::from_str(&record)).transpose()?)
        };
        self.told("read the ledger", read).await
    }

    /// The same for either durability: what the server promises is its own setting.
    async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: TxnChanges,
        _: Durability,
    ) -> Result<LedgerWrite, StoreError> {
        let write = async {
            let (token, revision) = expected
                .map_or_else(Default::default, |(token, revision)| (token.to_string(), revision.to_string()));
            let entry = txns.append.as_ref().map(serde_json::to_string).transpose()?.unwrap_or_default();
            let args = [
                token,
                revision,
                next.generation.to_string(),
                next.token.to_string(),
                next.revision.to_string(),
                next.appended.to_string(),
                next.committed.to_string(),
                serde_json::to_string(next)?,
                txns.append.as_ref().map(|txn| txn.txid.to_string()).unwrap_or_default(),
                entry,
                txns.forget_below.to_string(),
                u8::from(txns.forget_all).to_string(),
            ];
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let answer = self.of_source("ledger", "write", &args).await?;
            match array(&answer)? {
                [word, _] if text(word)? == "written" => Ok(LedgerWrite::Written),
                [word, record] if text(word)? == "refused" => {
                    let held = optional(record)?.map(|record| serde_json::from_str(&record)).transpose()?;
                    Ok(LedgerWrite::Refused(held.map(Box::new)))
                }
                _ => Err(layout::other_shape().into()),
            }
        };
        self.told("write the ledger", write).await
    }

    async fn txns(&self, first: TxId) -> Result<Vec<Txn>, StoreError> {
        let read = async {
            let mut txns: Vec<Txn> = listed(&self.of_source("ledger", "txns", &[&first.to_string()]).await?)?;
            txns.retain(|txn| txn.txid >= first);
            txns.sort_by_key(|txn| txn.txid);
            Ok(txns)
        };
        self.told("read the entries", read).await
    }

    async fn request(&self, request: CutRequest) -> Result<(), StoreError> {
        self.told("leave a cut request", self.put("requests", request.id, serde_json::to_string(&request)))
            .await
    }

    async fn requests(&self) -> Result<Vec<CutRequest>, StoreError> {
        self.told("read the cut requests", self.list("requests")).await
    }

    async fn withdraw(&self, id: Uuid) -> Result<(), StoreError> {
        self.told("withdraw a cut request", self.remove("requests", id)).await
    }

    async fn pin(&self, pin: Pin) -> Result<(), StoreError> {
        self.told("set a pin", self.put("pins", pin.id, serde_json::to_string(&pin))).await
    }

    async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.told("read the pins", self.list("pins")).await
    }

    async fn unpin(&self, id: Uuid) -> Result<(), StoreError> {
        self.told("take a pin back", self.remove("pins", id)).await
    }
}

fn listed<T: DeserializeOwned>(answer: &Value) -> Result<Vec<T>, Trouble> {
    array(answer)?.iter().map(|value| Ok(serde_json::from_str(&text(value)?)?)).collect()
}

impl RedisSource {
    /// Calls a function on a key of the source itself.
    async fn of_source(&self, name: &str, function: &str, args: &[&str]) -> Result<Value, Trouble> {
        let key = layout::of_source(&self.server.namespace, self.source, name);
        self.server.connections.call(Lane::Small, function, &key, args).await
    }

    async fn put(&self, name: &str, id: Uuid, record: serde_json::Result<String>) -> Result<(), Trouble> {
        let key = layout::of_source(&self.server.namespace, self.source, name);
        let mut command = redis::cmd("HSET");
        command.arg(key).arg(id.simple().to_string()).arg(record?);
        self.server.connections.run(Lane::Small, &command).await.map(|_| ())
    }

    async fn remove(&self, name: &str, id: Uuid) -> Result<(), Trouble> {
        let key = layout::of_source(&self.server.namespace, self.source, name);
        let mut command = redis::cmd("HDEL");
        command.arg(key).arg(id.simple().to_string());
        self.server.connections.run(Lane::Small, &command).await.map(|_| ())
    }

    async fn list<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, Trouble> {
        listed(&self.of_source(name, "list", &[]).await?)
    }
}
