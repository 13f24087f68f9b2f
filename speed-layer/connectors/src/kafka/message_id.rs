//! A record's name towards the engine, which has 64 bits for it.

use thiserror::Error;

/// Bits of the slot, of the attempt and of the offset.
const SLOT_BITS: u32 = 12;
const ATTEMPT_BITS: u32 = 4;
const OFFSET_BITS: u32 = 48;

/// Partitions that one task can read: 4,096.
pub const MAX_SLOTS: usize = 1 << SLOT_BITS;
/// The offset that no record may reach: 2^48. At a million records a second, a partition is there after nine years.
pub const MAX_OFFSET: u64 = 1 << OFFSET_BITS;
/// Attempts are told apart modulo this.
const ATTEMPTS: u32 = 1 << ATTEMPT_BITS;

/// A record that has no name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageIdError {
    /// The offset is too large.
    #[error("offset {0} is not below 2^48, which is the limit of this spout; copy the topic into a new one")]
    Offset(u64),
    /// The task has too many partitions.
    #[error("a task of this spout reads at most 4096 partitions; give the spout more tasks")]
    Slot,
}

/// Which record, and which attempt at it. A slot stands for a partition of a task: twelve bits reach further with it
/// than with the partition's number, and a partition that begins anew gets a new slot, so that what comes of its past
/// is not mistaken for its present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// The place of the partition among those that the task has had.
    pub slot: usize,
    /// How often the record had failed when it was emitted, modulo 16.
    pub attempt: u32,
    /// The record's offset.
    pub offset: u64,
}

impl RecordId {
    /// As the engine knows it. The ids of consecutive offsets are consecutive.
    ///
    /// # Errors
    ///
    /// The slot or the offset is too large.
    pub fn pack(self) -> Result<u64, MessageIdError> {
        if self.slot >= MAX_SLOTS {
            return Err(MessageIdError::Slot);
        }
        if self.offset >= MAX_OFFSET {
            return Err(MessageIdError::Offset(self.offset));
        }
        let attempt = u64::from(self.attempt % ATTEMPTS);
        Ok((self.slot as u64) << (ATTEMPT_BITS + OFFSET_BITS) | attempt << OFFSET_BITS | self.offset)
    }

    /// From the engine's id.
    pub fn unpack(id: u64) -> Self {
        Self {
            slot: (id >> (ATTEMPT_BITS + OFFSET_BITS)) as usize,
            attempt: (id >> OFFSET_BITS) as u32 % ATTEMPTS,
            offset: id % MAX_OFFSET,
        }
    }

    /// Whether it is this attempt, as far as four bits can tell.
    pub fn is_attempt(self, attempt: u32) -> bool {
        self.attempt == attempt % ATTEMPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again_up_to_the_limits() {
        for slot in [0, 1, MAX_SLOTS - 1] {
            for offset in [0, 1, MAX_OFFSET - 1] {
                for attempt in [0, 7, 15] {
                    let id = RecordId { slot, attempt, offset };
                    assert_eq!(RecordId::unpack(id.pack().unwrap()), id);
                }
            }
        }
        let id = RecordId { slot: 3, attempt: 18, offset: 9 };
        assert!(RecordId::unpack(id.pack().unwrap()).is_attempt(18));
        assert!(!RecordId::unpack(id.pack().unwrap()).is_attempt(19));
    }

    #[test]
    fn beyond_the_limits_is_an_error_that_says_what_to_do() {
        let error = RecordId { slot: 0, attempt: 0, offset: MAX_OFFSET }.pack().unwrap_err();
        assert!(error.to_string().contains("281474976710656"), "{error}");
        let error = RecordId { slot: MAX_SLOTS, attempt: 0, offset: 0 }.pack().unwrap_err();
        assert!(error.to_string().contains("more tasks"), "{error}");
    }
}
