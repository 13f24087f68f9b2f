//! The things of librdkafka that its Rust wrapper does not offer: the id of a topic (KIP-516), taking many records of
//! one partition at once, with the offsets at which the partition ends, and the metadata of a committed offset that
//! may be any bytes. The only unsafe code of the project.
//!
//! librdkafka's objects may be used from any thread. What is asked for here is owned by the structs below and
//! destroyed with them, each before the client that it belongs to, which they keep alive.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;
use tokio::sync::Notify;

/// Records taken at a time.
const BATCH: usize = 1_024;

/// What a cluster says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// The cluster's id.
    pub(super) cluster: String,
    /// The id of this incarnation of the topic.
    pub(super) topic: String,
    /// How many partitions it has.
    pub(super) partitions: u32,
}

fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// Asks the cluster for a topic's description. Blocks for up to `patience`.
pub(super) fn describe(
    consumer: &BaseConsumer,
    topic: &str,
    patience: Duration,
) -> Result<Description, RDKafkaErrorCode> {
    let client = consumer.client().native_ptr();
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    // SAFETY: `client` lives as long as `consumer`. Every object made here is destroyed here, in reverse order, and
    // none is used after that; texts are copied before the objects that own them go.
    unsafe {
        let cluster = sys::rd_kafka_clusterid(client, milliseconds(patience));
        if cluster.is_null() {
            return Err(RDKafkaErrorCode::AllBrokersDown);
        }
        let cluster_id = CStr::from_ptr(cluster).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(client, cluster.cast());

        let mut names = [name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut reason = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            milliseconds(patience),
            reason.as_mut_ptr(),
            reason.len(),
        );
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, milliseconds(patience + Duration::from_secs(1)));
        let described = described(event, cluster_id);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        described
    }
}

/// Reads the answer to a DescribeTopics request for one topic.
///
/// # Safety
/// `event` is null or an event that lives until this returns.
unsafe fn described(
    event: *mut sys::rd_kafka_event_t,
    cluster: String,
) -> Result<Description, RDKafkaErrorCode> {
    if event.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    // SAFETY: the event is alive, and owns everything that is read from it.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let topic = *topics;
        let error = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let id = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id)).to_string_lossy().into_owned();
        let partitions = u32::try_from(partitions).map_err(|_| RDKafkaErrorCode::Fail)?;
        Ok(Description { cluster, topic: id, partitions })
    }
}

/// What stands beside a committed offset. The wrapper's own accessor panics over what is no text.
pub(super) fn metadata(list: &TopicPartitionList, topic: &str, partition: i32) -> String {
    let Ok(name) = CString::new(topic) else { return String::new() };
    // SAFETY: the element belongs to the list, and its metadata of that length to the element; the text is copied.
    unsafe {
        let found = sys::rd_kafka_topic_partition_list_find(list.ptr(), name.as_ptr(), partition);
        match found.as_ref() {
            Some(element) if !element.metadata.is_null() => {
                let bytes = std::slice::from_raw_parts(element.metadata.cast(), element.metadata_size);
                String::from_utf8_lossy(bytes).into_owned()
            }
            _ => String::new(),
        }
    }
}

/// What comes out of a partition's queue.
#[derive(Debug)]
pub(super) enum Item {
    /// A record.
    Record(Record),
    /// The partition ends at this offset, for now.
    End(u64),
    /// Reading has failed.
    Error(RDKafkaErrorCode),
}

/// A record, still in librdkafka's memory. To be dropped before its client, which otherwise waits for it for ever.
#[derive(Debug)]
pub(super) struct Record(ptr::NonNull<sys::rd_kafka_message_t>);

// SAFETY: a message belongs to whoever took it, and librdkafka lets any thread destroy it.
unsafe impl Send for Record {}
// SAFETY: through a shared reference its fields are only read.
unsafe impl Sync for Record {}

impl Record {
    pub(super) fn offset(&self) -> u64 {
        // SAFETY: the message lives until the drop. A record's offset is never negative.
        unsafe { self.0.as_ref() }.offset.cast_unsigned()
    }

    /// The value; empty for a tombstone.
    pub(super) fn payload(&self) -> &[u8] {
        self.value().unwrap_or_default()
    }

    /// The value; none for a tombstone.
    pub(super) fn value(&self) -> Option<&[u8]> {
        // SAFETY: the message lives until the drop, and so does its payload of `len` bytes.
        unsafe {
            let message = self.0.as_ref();
            (!message.payload.is_null())
                .then(|| std::slice::from_raw_parts(message.payload.cast(), message.len))
        }
    }

    /// The key, if there is one.
    pub(super) fn key(&self) -> Option<&[u8]> {
        // SAFETY: the message lives until the drop, and so does its key of `key_len` bytes.
        unsafe {
            let message = self.0.as_ref();
            (!message.key.is_null()).then(|| std::slice::from_raw_parts(message.key.cast(), message.key_len))
        }
    }

    /// Microseconds since the epoch.
    pub(super) fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives until the drop.
        let milliseconds = unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), &raw mut kind) };
        (milliseconds >= 0).then(|| milliseconds.saturating_mul(1_000))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, here.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// The queue of one partition, apart from the consumer's own.
pub(super) struct PartitionQueue {
    queue: ptr::NonNull<sys::rd_kafka_queue_t>,
    /// Kept alive for the callback, which is taken back before it goes.
    _filled: Arc<Notify>,
    /// The queue must go before its client.
    _consumer: Arc<BaseConsumer>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PartitionQueue {}
// SAFETY: as above; its functions lock what they touch.
unsafe impl Sync for PartitionQueue {}

/// Called by librdkafka's threads when something was put into an empty queue.
unsafe extern "C" fn filled(_: *mut sys::rd_kafka_t, notify: *mut c_void) {
    // SAFETY: it is the pointer that `PartitionQueue::split` handed over, of an `Arc` that outlives the callback.
    unsafe { &*notify.cast::<Notify>() }.notify_waiters();
}

impl PartitionQueue {
    /// Splits a partition's queue off. To be done before the partition is assigned. `notify` is told when it fills.
    pub(super) fn split(
        consumer: &Arc<BaseConsumer>,
        topic: &str,
        partition: i32,
        notify: &Arc<Notify>,
    ) -> Result<Self, RDKafkaErrorCode> {
        let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client lives as long as the consumer, which the struct keeps.
        unsafe {
            let queue =
                sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition);
            let queue = ptr::NonNull::new(queue).ok_or(RDKafkaErrorCode::UnknownPartition)?;
            // Forwarded to nowhere: what the partition delivers stays in its own queue.
            sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            let opaque = Arc::as_ptr(notify).cast_mut().cast();
            sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(filled), opaque);
            Ok(Self { queue, _filled: Arc::clone(notify), _consumer: Arc::clone(consumer) })
        }
    }

    /// Takes what there is, waiting up to `patience` for the first of it.
    pub(super) fn take(&self, patience: Duration, into: &mut impl Extend<Item>) -> usize {
        let mut messages = [ptr::null_mut(); BATCH];
        // SAFETY: the array has room for `BATCH` pointers, of which the first `count` are messages that are ours.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                milliseconds(patience),
                messages.as_mut_ptr(),
                BATCH,
            )
        };
        let count = usize::try_from(taken).unwrap_or(0);
        into.extend(messages[..count].iter().filter_map(|message| {
            let record = Record(ptr::NonNull::new(*message)?);
            // SAFETY: the message lives until `record` is dropped.
            let error = unsafe { record.0.as_ref() }.err;
            Some(match error {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Item::Record(record),
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Item::End(record.offset()),
                error => Item::Error(error.into()),
            })
        }));
        count
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the callback is taken back first, so that nobody uses `filled` any more; then the queue goes, before
        // its client.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}
