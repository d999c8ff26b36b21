//! Sends to the ledger's topic, over a producer of its own: that of the records may be full.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_common::ledger::encode;
use millrace_common::ledger::sources::SourceKey;
use millrace_common::record::SourceId;
use millrace_common::retry::Delays;
use rdkafka::types::RDKafkaErrorCode;

use super::outbox::{Outbox, Say};
use crate::produce::kafka::KafkaBroker;
use crate::produce::{Broker, Delivery, Outgoing, Refused};
use crate::tail::Now;

enum Sent {
    Heartbeat,
    Source(SourceId, Say),
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Sources that are no longer in the topic.
    pub forgotten: Vec<SourceId>,
    pub num_acknowledged: usize,
    /// The topic is gone.
    pub is_topic_gone: bool,
}

pub(super) struct Sender {
    broker: KafkaBroker,
    host_id: String,
    under_way: BTreeMap<usize, (Duration, Sent)>,
    num_sent: usize,
    deliveries: Vec<Delivery>,
    delays: Delays,
    not_before: Duration,
    refusal: Option<RDKafkaErrorCode>,
}

impl Sender {
    const MAX_UNDER_WAY: usize = 500;
    /// A message without an answer for longer is worth telling.
    const PATIENCE: Duration = Duration::from_secs(15);

    pub(super) fn new(broker: KafkaBroker, host_id: String) -> Self {
        Self {
            broker,
            host_id,
            under_way: BTreeMap::new(),
            num_sent: 0,
            deliveries: Vec::new(),
            delays: Delays::new(Duration::from_millis(500), Duration::from_secs(10)),
            not_before: Duration::ZERO,
            refusal: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Why nothing is acknowledged, if so.
    pub(super) fn fault(&self, now: Duration) -> Option<String> {
        let is_late = |(since, _): &(Duration, Sent)| now >= *since + Self::PATIENCE;
        match self.refusal {
            Some(code) => Some(format!("the broker refuses: {code}")),
            None if self.under_way.values().next().is_some_and(is_late) => {
                let broker = self.broker.leader(0, 0).unwrap_or_else(|| "the broker".to_owned());
                Some(format!("{broker} acknowledges nothing"))
            }
            None => None,
        }
    }

    /// Takes acknowledgements.
    pub(super) fn take(&mut self, now: Duration, outbox: &mut Outbox) -> Answers {
        let mut answers = Answers::default();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.broker.poll(Duration::ZERO, &mut deliveries);
        for Delivery { token, error, .. } in deliveries.drain(..) {
            let Some((_, sent)) = self.under_way.remove(&token) else { continue };
            match error {
                None => {
                    self.refusal = None;
                    self.delays.reset();
                    answers.num_acknowledged += 1;
                }
                Some(code) => {
                    answers.is_topic_gone |=
                        matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic);
                    self.pause(code, now);
                }
            }
            if let Sent::Source(id, say) = sent {
                if error.is_none() && say == Say::Forget {
                    answers.forgotten.push(id);
                }
                outbox.settle(id, error.map(|_| say));
            }
        }
        self.deliveries = deliveries;
        answers
    }

    fn pause(&mut self, code: RDKafkaErrorCode, now: Duration) {
        if now >= self.not_before {
            self.not_before = now + self.delays.next_delay();
        }
        self.refusal = Some(code);
    }

    pub(super) fn may_send(&self, now: Duration) -> bool {
        now >= self.not_before && self.under_way.len() < Self::MAX_UNDER_WAY
    }

    /// Returns false if it comes back to the outbox.
    pub(super) fn send(&mut self, id: SourceId, say: Say, now: Now, outbox: &mut Outbox) -> bool {
        let key = encode(&SourceKey::Source(self.host_id.clone(), id));
        let value = match &say {
            Say::Row { text, .. } => Some(text.as_slice()),
            Say::Forget => None,
        };
        match self.produce(&key, value, now) {
            Some(token) => {
                self.under_way.insert(token, (now.mono, Sent::Source(id, say)));
                true
            }
            None => {
                outbox.settle(id, Some(say));
                false
            }
        }
    }

    /// Returns false if it could not be sent.
    pub(super) fn send_heartbeat(&mut self, value: &[u8], now: Now) -> bool {
        let key = encode(&SourceKey::Host((self.host_id.clone(),)));
        let token = self.produce(&key, Some(value), now);
        token.inspect(|token| _ = self.under_way.insert(*token, (now.mono, Sent::Heartbeat))).is_some()
    }

    pub(super) fn has_heartbeat_under_way(&self) -> bool {
        self.under_way.values().any(|(_, sent)| matches!(sent, Sent::Heartbeat))
    }

    fn produce(&mut self, key: &[u8], value: Option<&[u8]>, now: Now) -> Option<usize> {
        let token = self.num_sent;
        let outgoing = Outgoing { topic: 0, partition: 0, key, value, timestamp_ms: now.wall_ms, token };
        match self.broker.send(outgoing) {
            Ok(()) => {
                self.broker.dispatch();
                self.num_sent += 1;
                Some(token)
            }
            Err(Refused::Full) => {
                self.not_before = now.mono + Duration::from_millis(100);
                None
            }
            Err(Refused::Error(code)) => {
                self.pause(code, now.mono);
                None
            }
        }
    }

    /// Gives everything under way back to the outbox, before the producer is dropped.
    pub(super) fn give_back(self, outbox: &mut Outbox) {
        for (_, sent) in self.under_way.into_values() {
            if let Sent::Source(id, say) = sent {
                outbox.settle(id, Some(say));
            }
        }
    }
}
