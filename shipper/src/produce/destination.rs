//! A topic as a producer's records reach it.
//!
//! Calls librdkafka itself: for each record the `rdkafka` crate copies the topic's name, and librdkafka looks that up under its
//! locks.

use std::ffi::{CString, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as librdkafka;
use rdkafka::bindings::rd_kafka_vtype_t as part;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::util::IntoOpaque;

use super::Outgoing;
use super::kafka::Reports;

pub(super) struct Destination {
    topic: NonNull<librdkafka::rd_kafka_topic_t>,
    /// Outlives the topic: what a client has must be given back before it ends.
    producer: Arc<BaseProducer<Reports>>,
}

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for Destination {}

impl Destination {
    /// `None`: the client refuses the name.
    pub(super) fn new(producer: &Arc<BaseProducer<Reports>>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client lives as long as `producer`. Without a configuration of its own, the topic has the client's.
        let topic = unsafe {
            librdkafka::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), std::ptr::null_mut())
        };
        Some(Self { topic: NonNull::new(topic)?, producer: Arc::clone(producer) })
    }

    /// Hands a record over; its token comes back with its delivery report unless this fails.
    pub(super) fn send(&self, record: &Outgoing<'_>) -> Result<(), RDKafkaErrorCode> {
        let value = record.value.map_or(std::ptr::null(), <[u8]>::as_ptr);
        // SAFETY: the parts are as `rd_kafka_producev` lists them, key and value are copied before it returns, and `Reports` takes
        // the opaque for a `usize`.
        let code = unsafe {
            librdkafka::rd_kafka_producev(
                self.producer.client().native_ptr(),
                part::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                part::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                part::RD_KAFKA_VTYPE_MSGFLAGS,
                librdkafka::RD_KAFKA_MSG_F_COPY,
                part::RD_KAFKA_VTYPE_VALUE,
                value.cast::<c_void>(),
                record.value.map_or(0, <[u8]>::len),
                part::RD_KAFKA_VTYPE_KEY,
                record.key.as_ptr().cast::<c_void>(),
                record.key.len(),
                part::RD_KAFKA_VTYPE_OPAQUE,
                record.token.into_ptr(),
                part::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms,
                part::RD_KAFKA_VTYPE_END,
            )
        };
        outcome(code)
    }

    /// Hands records of a partition over in one call, whose time they get. Returns what became of each.
    pub(super) fn send_all_now<'a>(
        &self,
        partition: i32,
        records: impl Iterator<Item = Outgoing<'a>>,
    ) -> impl Iterator<Item = Result<(), RDKafkaErrorCode>> {
        let message = |record: Outgoing<'_>| librdkafka::rd_kafka_message_t {
            err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            rkt: std::ptr::null_mut(),
            partition,
            payload: record.value.map_or(std::ptr::null(), <[u8]>::as_ptr).cast_mut().cast::<c_void>(),
            len: record.value.map_or(0, <[u8]>::len),
            key: record.key.as_ptr().cast_mut().cast::<c_void>(),
            key_len: record.key.len(),
            offset: 0,
            _private: record.token.into_ptr(),
        };
        let mut messages: Vec<_> = records.map(message).collect();
        // SAFETY: the array is as long as said, key and value are copied before it returns, and `Reports` takes the opaque for a
        // `usize`.
        unsafe {
            librdkafka::rd_kafka_produce_batch(
                self.topic.as_ptr(),
                partition,
                librdkafka::RD_KAFKA_MSG_F_COPY as c_int,
                messages.as_mut_ptr(),
                messages.len() as c_int,
            );
        }
        messages.into_iter().map(|message| outcome(message.err))
    }
}

fn outcome(code: RDKafkaRespErr) -> Result<(), RDKafkaErrorCode> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { librdkafka::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}
