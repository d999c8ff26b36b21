//! Tells when a producer has something to say: acknowledgements, errors, logs, logins to renew.
//!
//! Calls librdkafka itself: the `rdkafka` crate's producer can be asked, and does not tell.

use std::ffi::c_void;
use std::sync::Arc;

use rdkafka::bindings as librdkafka;
use rdkafka::producer::{BaseProducer, Producer};

use super::kafka::Reports;

/// The queue that `BaseProducer::poll` serves.
pub(super) struct Events {
    queue: *mut librdkafka::rd_kafka_queue_t,
    /// Outlives the queue.
    producer: Arc<BaseProducer<Reports>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Events {}

impl Events {
    /// From now on [`Reports::wake`] is called, from librdkafka's threads, whenever the empty queue gets an event.
    pub(super) fn of(producer: &Arc<BaseProducer<Reports>>) -> Self {
        let context: *const Reports = Arc::as_ptr(producer.context());
        // SAFETY: the client lives as long as `producer`, and its context, which no thread of the client outlives, as long as it.
        let queue = unsafe {
            let queue = librdkafka::rd_kafka_queue_get_main(producer.client().native_ptr());
            librdkafka::rd_kafka_queue_cb_event_enable(queue, Some(on_event), context.cast_mut().cast());
            queue
        };
        Self { queue, producer: Arc::clone(producer) }
    }

    /// Serves all events there are. Of what is left no word would come.
    pub(super) fn serve(&self) {
        // SAFETY: the queue is ours until the drop.
        while unsafe { librdkafka::rd_kafka_queue_length(self.queue) } > 0 {
            self.producer.poll(std::time::Duration::ZERO);
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // SAFETY: it was taken in `of`, and nothing uses it after this.
        unsafe { librdkafka::rd_kafka_queue_destroy(self.queue) }
    }
}

unsafe extern "C" fn on_event(_: *mut librdkafka::rd_kafka_t, context: *mut c_void) {
    // SAFETY: `of` gave it.
    unsafe { &*context.cast::<Reports>() }.wake();
}
