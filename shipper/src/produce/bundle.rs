//! Records that are handed to librdkafka in one call.
//!
//! A call for each record takes a lock of the topic and looks at two clocks: a sixth of all that a record costs.

use rdkafka::types::RDKafkaErrorCode;

use super::destination::Destination;
use super::{Delivery, Outgoing};

/// Records of one partition and one timestamp, in the order they were sent.
#[derive(Default)]
pub(super) struct Bundle {
    topic: usize,
    partition: i32,
    timestamp_ms: i64,
    /// Key and value of each.
    bytes: Vec<u8>,
    places: Vec<Place>,
}

struct Place {
    key_length: usize,
    value_length: usize,
    token: usize,
}

impl Bundle {
    pub(super) const MAX_RECORDS: usize = 32;
    /// Of larger records a call is a smaller part of what they cost.
    const MAX_BYTES: usize = 16 << 10;
    const MAX_RECORD_BYTES: usize = Self::MAX_BYTES / 4;

    /// Whether the record may go with others: not if the client may refuse it for its size, as those behind it would be taken.
    pub(super) fn suits(record: &Outgoing<'_>, max_message_bytes: usize) -> bool {
        /// librdkafka counts up to about 100 bytes besides key and value.
        const FRAME_BYTES: usize = 256;
        let num_bytes = record.num_bytes();
        record.value.is_some() && num_bytes <= Self::MAX_RECORD_BYTES && num_bytes + FRAME_BYTES <= max_message_bytes
    }

    /// Whether a record that [suits](Self::suits) may go with those here.
    pub(super) fn has_room_for(&self, record: &Outgoing<'_>) -> bool {
        let of_these = (self.topic, self.partition, self.timestamp_ms);
        self.is_empty() || (of_these == (record.topic, record.partition, record.timestamp_ms) && !self.is_full())
    }

    /// Whether it should be handed over before the next record.
    pub(super) fn is_full(&self) -> bool {
        self.places.len() >= Self::MAX_RECORDS || self.bytes.len() > Self::MAX_BYTES - Self::MAX_RECORD_BYTES
    }

    pub(super) fn push(&mut self, record: &Outgoing<'_>) {
        if self.is_empty() {
            (self.topic, self.partition, self.timestamp_ms) = (record.topic, record.partition, record.timestamp_ms);
        }
        let value = record.value.unwrap_or_default();
        self.bytes.extend_from_slice(record.key);
        self.bytes.extend_from_slice(value);
        self.places.push(Place { key_length: record.key.len(), value_length: value.len(), token: record.token });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn topic(&self) -> usize {
        self.topic
    }

    fn records(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let mut rest = self.bytes.as_slice();
        self.places.iter().map(move |place| {
            let (key, behind) = rest.split_at(place.key_length);
            let (value, behind) = behind.split_at(place.value_length);
            rest = behind;
            let (topic, partition, timestamp_ms) = (self.topic, self.partition, self.timestamp_ms);
            Outgoing { topic, partition, key, value: Some(value), timestamp_ms, token: place.token }
        })
    }

    /// Hands the records over, in one call if that gives them their timestamp. What the client took before it refused one
    /// is gone from here.
    pub(super) fn hand_over(&mut self, to: &Destination, now_us: i64) -> Result<(), RDKafkaErrorCode> {
        let mut num_taken = 0;
        let mut count = |sent: Result<(), RDKafkaErrorCode>| sent.inspect(|()| num_taken += 1);
        let handed = if is_time_of_call(self.timestamp_ms, now_us) {
            to.send_all_now(self.partition, self.records()).try_for_each(count)
        } else {
            self.records().try_for_each(|record| count(to.send(&record)))
        };
        let taken = self.places.drain(..num_taken);
        let num_bytes: usize = taken.map(|place| place.key_length + place.value_length).sum();
        self.bytes.drain(..num_bytes);
        handed
    }

    /// Empties it: none of its records will be delivered.
    pub(super) fn fail(&mut self, code: RDKafkaErrorCode, deliveries: &mut Vec<Delivery>) {
        let (timestamp_ms, error) = (self.timestamp_ms, Some(code));
        deliveries.extend(self.places.drain(..).map(|place| Delivery { token: place.token, timestamp_ms, error }));
        self.bytes.clear();
    }
}

/// Whether a call at `now_us` for several records, which all get the time of the call, gives them `timestamp_ms`.
///
/// Not at the end of an hour, which a thread that is kept waiting at just this place would carry into the next: the hour of a
/// record must be the one that was noted.
fn is_time_of_call(timestamp_ms: i64, now_us: i64) -> bool {
    const CALL_US: i64 = 20;
    const HOUR_MS: i64 = 3_600_000;
    const END_OF_HOUR_MS: i64 = 10_000;
    timestamp_ms == now_us.div_euclid(1000)
        && timestamp_ms == (now_us + CALL_US).div_euclid(1000)
        && timestamp_ms.rem_euclid(HOUR_MS) < HOUR_MS - END_OF_HOUR_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Outgoing<'static> =
        Outgoing { topic: 1, partition: 2, key: b"key", value: Some(b"value"), timestamp_ms: 3, token: 4 };

    #[test]
    fn records_come_out_as_they_went_in() {
        let mut bundle = Bundle::default();
        let records = [RECORD, Outgoing { key: b"", value: Some(b"longer value"), token: 5, ..RECORD }];
        records.iter().for_each(|record| bundle.push(record));
        assert!(bundle.records().eq(records));
        let mut deliveries = Vec::new();
        bundle.fail(RDKafkaErrorCode::PurgeQueue, &mut deliveries);
        let failed = [4, 5].map(|token| Delivery { token, timestamp_ms: 3, error: Some(RDKafkaErrorCode::PurgeQueue) });
        assert_eq!(deliveries, failed);
        assert!(bundle.is_empty() && bundle.records().next().is_none());
    }

    #[test]
    fn records_of_one_partition_and_one_time_go_together() {
        let mut bundle = Bundle::default();
        assert!(bundle.has_room_for(&RECORD));
        bundle.push(&RECORD);
        assert!(bundle.has_room_for(&RECORD));
        let others = [
            Outgoing { topic: 0, ..RECORD },
            Outgoing { partition: 0, ..RECORD },
            Outgoing { timestamp_ms: 4, ..RECORD },
        ];
        assert!(!others.iter().any(|other| bundle.has_room_for(other)));
        (1..Bundle::MAX_RECORDS).for_each(|_| bundle.push(&RECORD));
        assert!(!bundle.has_room_for(&RECORD));
    }

    #[test]
    fn large_records_go_alone_and_bytes_are_bounded() {
        let value = vec![b'x'; Bundle::MAX_RECORD_BYTES - RECORD.key.len()];
        let large = Outgoing { value: Some(&value), ..RECORD };
        assert!(Bundle::suits(&large, 1_000_000) && !Bundle::suits(&large, 4300));
        assert!(!Bundle::suits(&Outgoing { value: Some(&vec![b'x'; 5000]), ..RECORD }, 1_000_000));
        assert!(!Bundle::suits(&Outgoing { value: None, ..RECORD }, 1_000_000));
        let mut bundle = Bundle::default();
        while bundle.has_room_for(&large) {
            bundle.push(&large);
        }
        assert_eq!(bundle.places.len(), 4);
        assert!(bundle.bytes.len() <= Bundle::MAX_BYTES);
    }

    #[test]
    fn the_time_of_a_call_is_that_of_its_records_or_not() {
        assert!(is_time_of_call(7, 7_000) && is_time_of_call(7, 7_979));
        assert!(!is_time_of_call(7, 6_999) && !is_time_of_call(7, 7_980) && !is_time_of_call(7, 8_000));
        let end_of_hour_ms = 3_590_000;
        assert!(is_time_of_call(end_of_hour_ms - 1, (end_of_hour_ms - 1) * 1000));
        assert!(!is_time_of_call(end_of_hour_ms, end_of_hour_ms * 1000));
        assert!(is_time_of_call(3_600_000, 3_600_000_000));
    }
}
