//! The messages of one partition, many at a time.
//!
//! Calls librdkafka itself: the queue of the `rdkafka` crate hands out one message per call, each with
//! an event of its own and looks at the clock, which together cost as much as mapping a small record.

use std::collections::VecDeque;
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as librdkafka;
use rdkafka::consumer::{BaseConsumer, Consumer, base_consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use super::source::Context;

/// Messages taken from librdkafka at once.
const MOST_MESSAGES: usize = 64;
/// Their bytes, about: so much may be held beside what librdkafka counts.
const MOST_BYTES: usize = 64 << 10;

/// A partition's queue, split off from that of its consumer.
pub struct PartitionQueue {
    /// Not handed out yet.
    taken: VecDeque<Message>,
    /// Of the message handed over last.
    usual_bytes: usize,
    queue: NonNull<librdkafka::rd_kafka_queue_t>,
    /// The same queue: tells when something comes, and keeps the client alive.
    events: base_consumer::PartitionQueue<Context>,
}

// SAFETY: librdkafka's queues and messages may be used from any thread, by one at a time.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// `None`: the consumer does not know the partition.
    pub(super) fn split(consumer: &Arc<BaseConsumer<Context>>, topic: &str, partition: i32) -> Option<Self> {
        let events = consumer.split_partition_queue(topic, partition)?;
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives as long as `events`. The reference to the queue is given back on drop.
        let queue = unsafe {
            librdkafka::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition)
        };
        let taken = VecDeque::with_capacity(MOST_MESSAGES);
        Some(Self { taken, usual_bytes: MOST_BYTES, queue: NonNull::new(queue)?, events })
    }

    /// `wake` is called from other threads when there is something to poll.
    pub(super) fn on_message(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        self.events.set_nonempty_callback(wake);
    }

    /// The next message, if there is one. Does not wait.
    pub fn poll(&mut self) -> Option<Result<Message, KafkaError>> {
        if self.taken.is_empty() {
            self.fill();
        }
        let message = self.taken.pop_front()?;
        Some(match message.error() {
            None => Ok(message),
            Some(error) => Err(KafkaError::MessageConsumption(error.into())),
        })
    }

    fn fill(&mut self) {
        let mut messages = [ptr::null_mut(); MOST_MESSAGES];
        let most = (MOST_BYTES / self.usual_bytes.max(1)).clamp(1, MOST_MESSAGES);
        // SAFETY: the queue is ours, and `messages` has room for `most`.
        let num =
            unsafe { librdkafka::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, messages.as_mut_ptr(), most) };
        // Negative where the queue cannot be read at all; the consumer itself tells of that.
        let num = usize::try_from(num).unwrap_or(0);
        self.taken.extend(messages[..num].iter().filter_map(|message| NonNull::new(*message)).map(Message));
        if let Some(last) = self.taken.back() {
            self.usual_bytes = last.key().map_or(0, <[u8]>::len) + last.value().map_or(0, <[u8]>::len);
        }
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: it was taken in `split`, and nothing uses it after this.
        unsafe { librdkafka::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// A message, or an error in the place of one.
pub struct Message(NonNull<librdkafka::rd_kafka_message_t>);

// SAFETY: as for the queue.
unsafe impl Send for Message {}

impl Message {
    fn raw(&self) -> &librdkafka::rd_kafka_message_t {
        // SAFETY: it is ours until the drop, and librdkafka does not change it.
        unsafe { self.0.as_ref() }
    }

    fn error(&self) -> Option<RDKafkaRespErr> {
        let error = self.raw().err;
        (error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(error)
    }

    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Milliseconds since the epoch, if the message has a time.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = librdkafka::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is ours, and `kind` outlives the call.
        let time = unsafe { librdkafka::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        (kind != librdkafka::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && time != -1).then_some(time)
    }

    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: the bytes belong to the message.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    /// `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: the bytes belong to the message.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    /// The value of a header; of several the last.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let (mut headers, mut value, mut length) = (ptr::null_mut(), ptr::null(), 0);
        // SAFETY: the headers belong to the message.
        let found = unsafe { librdkafka::rd_kafka_message_headers(self.0.as_ptr(), &mut headers) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let name = CString::new(name).ok()?;
        // SAFETY: so do their values.
        unsafe {
            let found = librdkafka::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length);
            (found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| bytes(value.cast_mut(), length)).flatten()
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from it is left.
        unsafe { librdkafka::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `start` is null or points to `length` bytes that live and stay unchanged for `'a`.
unsafe fn bytes<'a>(start: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}
