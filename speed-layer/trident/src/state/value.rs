//! Values with what makes them exactly once. As JSON they are `[txid, value]` and `[txid, value, previous]`; an opaque
//! value without one before it has two elements, because a previous value may itself be null.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor, value::UnitDeserializer},
    ser::SerializeSeq,
};
use stratus_topology::TaskError;

/// A value and the transaction that wrote it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionalValue<V>(
    /// The transaction.
    pub u64,
    /// The value.
    pub V,
);

/// A value, the transaction that wrote it last, and the value before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueValue<V> {
    txid: u64,
    current: V,
    previous: Option<V>,
}

impl<V: Clone> OpaqueValue<V> {
    /// A value that this transaction wrote over that one.
    pub fn new(txid: u64, current: V, previous: Option<V>) -> Self {
        Self { txid, current, previous }
    }

    /// The value that `txid` begins with: what the transactions before it have written.
    ///
    /// # Errors
    ///
    /// A later transaction has written already: the batches are behind the state.
    pub fn before(&self, txid: u64) -> Result<Option<&V>, TaskError> {
        match self.txid.cmp(&txid) {
            std::cmp::Ordering::Less => Ok(Some(&self.current)),
            std::cmp::Ordering::Equal => Ok(self.previous.as_ref()),
            std::cmp::Ordering::Greater => {
                Err(format!("transaction {txid} is behind the state, where {} has written", self.txid).into())
            }
        }
    }

    /// With a value that `txid` has written.
    ///
    /// # Errors
    ///
    /// As [`before`](Self::before).
    pub fn update(&self, txid: u64, value: V) -> Result<Self, TaskError> {
        let previous = self.before(txid)?.cloned();
        Ok(Self { txid, current: value, previous })
    }

    /// With a value that no transaction has written. Should the latest one be tried again, it begins with the value
    /// before it, and this one is lost.
    pub(super) fn outside(&self, value: V) -> Self {
        Self { txid: self.txid, current: value, previous: self.previous.clone() }
    }

    /// The latest value.
    pub fn current(&self) -> &V {
        &self.current
    }

    /// The value before the latest transaction.
    pub fn previous(&self) -> Option<&V> {
        self.previous.as_ref()
    }
}

impl<V: Serialize> Serialize for OpaqueValue<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(2 + usize::from(self.previous.is_some())))?;
        seq.serialize_element(&self.txid)?;
        seq.serialize_element(&self.current)?;
        if let Some(previous) = &self.previous {
            seq.serialize_element(previous)?;
        }
        seq.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for OpaqueValue<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// Reads the elements of an opaque value.
struct Elements<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Elements<V> {
    type Value = OpaqueValue<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[txid, value] or [txid, value, previous]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let txid = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let current = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        let previous = match seq.next_element::<Option<V>>()? {
            // Null is a value where values may be null. Elsewhere it is how Storm writes that there is none.
            Some(None) => V::deserialize(UnitDeserializer::<de::value::Error>::new()).ok(),
            previous => previous.flatten(),
        };
        Ok(OpaqueValue { txid, current, previous })
    }
}
