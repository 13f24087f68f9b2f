//! Kafka.

pub mod message_id;
pub mod offsets;
pub mod retries;
