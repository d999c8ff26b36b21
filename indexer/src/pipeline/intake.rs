//! From a Kafka record into the batch that is being filled: decode, route and map in one pass over its bytes.

use std::sync::Arc;
use std::time::Instant;

use millrace_common::json::Parser;

use super::field_tally::FieldTally;
use super::targets::Targets;
use crate::bulk::batch::{Batch, Builder, Item, Keep, Limits, Owner, Settles};
use crate::commit::ledger::{Covered, Sequence};
use crate::config::Rule;
use crate::decode::{self, Identifier, Incoming, Origin};
use crate::map::{Actions, Input, Plan, RuleOptions, State, Verdict};
use crate::reject::Reject;
use crate::route::{self, EpochMillis, Router, RouterOptions};

/// The stages between a record and the batch, with their buffers.
pub struct Intake {
    pub builder: Builder,
    pub targets: Targets,
    pub actions: Actions,
    pub fields: FieldTally,
    rules: Vec<Routing>,
    parser: Parser,
    identifier: Identifier,
    id: Vec<u8>,
    kafka_time: TimeText,
    /// What the record last taken stands for.
    pub covered: Option<Covered>,
    /// Documents whose event time could not name their index.
    pub num_by_kafka_time: u64,
}

struct Routing {
    router: Router,
    options: Arc<RuleOptions>,
    keeps_ids: bool,
    max_age_ms: i64,
    /// The router's names as targets.
    targets: Vec<u32>,
}

/// What became of a record.
#[derive(Debug)]
pub enum Taken {
    /// It stands in the batch, with so many bytes.
    Batched {
        size: u64,
    },
    /// It has no value.
    Null,
    /// It is older than its rule takes.
    Expired,
    /// Its index has no plan yet.
    WaitsFor {
        target: u32,
    },
    Rejected {
        reject: Reject,
        id: String,
        target: Option<u32>,
    },
}

impl Intake {
    pub fn new(rules: &[Rule], limits: Limits) -> Self {
        let routing = |rule: &Rule| Routing {
            router: Router::new(RouterOptions {
                pattern: rule.index.clone(),
                defaults: rule.defaults.clone(),
                accept_time: rule.accept_time,
                max_new_indices: rule.max_new_indices,
            }),
            options: Arc::clone(&rule.options),
            keeps_ids: rule.keeps_ids,
            max_age_ms: i64::try_from(rule.max_age.as_millis()).unwrap_or(i64::MAX),
            targets: Vec::new(),
        };
        Self {
            builder: Builder::new(limits),
            targets: Targets::default(),
            actions: Actions::default(),
            fields: FieldTally::default(),
            rules: rules.iter().map(routing).collect(),
            parser: Parser::default(),
            identifier: Identifier::default(),
            id: Vec::with_capacity(64),
            kafka_time: TimeText::new(),
            covered: None,
            num_by_kafka_time: 0,
        }
    }

    /// Takes one record. `wall` is the time of day.
    pub fn take(
        &mut self,
        record: &Incoming<'_>,
        rule: usize,
        owner: Owner,
        sequence: Sequence,
        now: Instant,
        wall: EpochMillis,
    ) -> Taken {
        self.covered = None;
        let Some(value) = record.value else { return Taken::Null };
        let kafka_time = record.timestamp_ms.unwrap_or(wall);
        let document = match self.parser.parse(value) {
            Ok(document) => document,
            Err(error) => {
                self.covered = self.identifier.identify(record, None, &mut self.id).covered();
                return rejected(decode::not_json(&error), &self.id, None);
            }
        };
        let origin = self.identifier.identify(record, Some(document), &mut self.id);
        self.covered = origin.covered();
        if let Err(reject) = decode::check_object(document) {
            return rejected(reject, &self.id, None);
        }
        let routing = &mut self.rules[rule];
        let oldest = wall.saturating_sub(routing.max_age_ms);
        if kafka_time < oldest && route::event_time(document).is_none_or(|time| time < oldest) {
            return Taken::Expired;
        }
        let destination = match routing.router.resolve(document, kafka_time, wall) {
            Ok(destination) => destination,
            Err(reject) => return rejected(reject, &self.id, None),
        };
        let number = destination.name as usize;
        while routing.targets.len() <= number {
            let name = Arc::clone(routing.router.name(routing.targets.len() as u32));
            routing.targets.push(self.targets.add(name, Arc::clone(&routing.options), now));
        }
        let number = routing.targets[number];
        let target = self.targets.get_mut(number);
        let Some((name, plan, state)) = target.plan(now) else { return Taken::WaitsFor { target: number } };
        self.num_by_kafka_time += u64::from(destination.by_kafka_time);

        let keeps_ids = routing.keeps_ids;
        let draft = self.builder.begin(name, keeps_ids.then_some(&self.id[..]));
        let input = Input { document, timestamp: Some(self.kafka_time.write(kafka_time)) };
        let is_sampled = self.fields.is_due();
        if is_sampled {
            self.actions.set_detailed(true);
        }
        let written = write(&mut self.builder, plan, state, input, &mut self.actions);
        if is_sampled {
            self.fields.take(self.actions.details());
            self.actions.set_detailed(false);
        }
        let is_verbatim = match written {
            Ok(is_verbatim) => is_verbatim,
            Err(reject) => {
                self.builder.give_up(draft);
                return rejected(reject, &self.id, Some(number));
            }
        };
        let is_whole = is_verbatim && document.raw().len() == value.len();
        let keep = match origin {
            Origin::Shipper(_) if is_whole && keeps_ids => Keep::Nothing,
            _ => Keep::Record { id: if keeps_ids { &[] } else { &self.id }, key: record.key, value },
        };
        let settles = Settles::new(owner, sequence, number, kafka_time);
        let item = self.builder.finish(draft, settles, keep, now);
        Taken::Batched { size: item.size() }
    }

    /// Holds a refused document of `batch` against the plan as it is now. `state` must not know the names that refused
    /// documents were to create: they are not there.
    pub fn plan_anew(&mut self, batch: &Batch, item: &Item, state: &mut State, now: Instant) -> PlannedAnew {
        let record = batch.record(item);
        let Ok(document) = self.parser.parse(&record.value) else { return PlannedAnew::Unchanged };
        let target = self.targets.get_mut(item.target);
        let Some((name, plan, _)) = target.plan(now) else { return PlannedAnew::Unchanged };
        let sent_id = batch.sent_id(item);
        let draft = self.builder.begin(name, sent_id);
        let input = Input { document, timestamp: Some(self.kafka_time.write(item.kafka_time)) };
        let written = write(&mut self.builder, plan, state, input, &mut self.actions);
        let is_unchanged = self.builder.document(&draft) == batch.document(item);
        match written {
            Ok(_) if !is_unchanged => {}
            Ok(_) => {
                self.builder.give_up(draft);
                return PlannedAnew::Unchanged;
            }
            Err(reject) => {
                self.builder.give_up(draft);
                return PlannedAnew::Rejected(reject);
            }
        }
        let id = if sent_id.is_some() { &[][..] } else { batch.id(item) };
        let keep = Keep::Record { id, key: record.key.as_deref(), value: &record.value };
        let settles = Settles { is_planned_anew: true, ..item.settles };
        PlannedAnew::Batched { size: self.builder.finish(draft, settles, keep, now).size() }
    }
}

/// What became of a refused document under a newer plan.
#[derive(Debug)]
pub enum PlannedAnew {
    /// It would be sent as it was.
    Unchanged,
    /// It stands in the batch, with so many bytes.
    Batched {
        size: u64,
    },
    Rejected(Reject),
}

/// Appends the document as the plan says. `true`: as it came.
fn write(
    builder: &mut Builder,
    plan: &Plan,
    state: &mut State,
    input: Input<'_, '_, '_>,
    actions: &mut Actions,
) -> Result<bool, Reject> {
    let raw = input.document.raw();
    match plan.apply(input, state, builder.body(), actions) {
        Verdict::Unchanged => builder.body().extend_from_slice(raw.as_bytes()),
        Verdict::Rewritten => return Ok(false),
        Verdict::Reject(reject) => return Err(reject.into()),
    }
    Ok(true)
}

fn rejected(reject: Reject, id: &[u8], target: Option<u32>) -> Taken {
    Taken::Rejected { reject, id: String::from_utf8_lossy(id).into_owned(), target }
}

/// Writes times as JSON text, `"2026-11-23T06:30:17.123Z"`. Records of one second differ in three digits only.
struct TimeText {
    time: EpochMillis,
    text: String,
}

impl TimeText {
    fn new() -> Self {
        Self { time: 0, text: "\"1970-01-01T00:00:00.000Z\"".to_owned() }
    }

    fn write(&mut self, time: EpochMillis) -> &str {
        if time.div_euclid(1_000) != self.time.div_euclid(1_000) {
            self.text = match jiff::Timestamp::from_millisecond(time) {
                Ok(time) => format!("\"{time:.3}\""),
                Err(_) => "null".to_owned(),
            };
        } else if self.text.len() > "123Z\"".len() {
            let at = self.text.len() - "123Z\"".len();
            let millis = time.rem_euclid(1_000) as u16;
            let digit = |power: u16| char::from(b'0' + (millis / power % 10) as u8);
            let digits: String = [100, 10, 1].into_iter().map(digit).collect();
            self.text.replace_range(at..at + 3, &digits);
        }
        self.time = time;
        &self.text
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn kafka_times_are_written_as_elasticsearch_reads_them() {
        let mut text = TimeText::new();
        for (time, expected) in [
            (7, "\"1970-01-01T00:00:00.007Z\""),
            (1_795_435_200_123, "\"2026-11-23T12:00:00.123Z\""),
            (1_795_435_200_999, "\"2026-11-23T12:00:00.999Z\""),
            (i64::MAX, "null"),
            (i64::MAX - 1, "null"),
            (-1, "\"1969-12-31T23:59:59.999Z\""),
        ] {
            assert_eq!(text.write(time), expected);
        }
    }

    const DAY_MS: i64 = 86_400_000;
    const WALL: i64 = 1_795_435_200_000;

    fn take(timestamp_ms: i64, value: &str) -> Taken {
        let text = "kafka: { brokers: [k], topics: [t] }\nelasticsearch: { hosts: [\"http://e\"] }";
        let config = crate::config::load("f", text, &[], &|_| None).unwrap();
        let mut intake = Intake::new(&config.rules, config.bulk.limits);
        let record = Incoming {
            topic: "t",
            partition: 0,
            offset: 0,
            timestamp_ms: Some(timestamp_ms),
            key: None,
            value: Some(value.as_bytes()),
            id_header: None,
        };
        intake.take(&record, 0, Owner { slot: 0, epoch: 0 }, 0, Instant::now(), WALL)
    }

    #[test]
    fn records_are_expired_only_by_both_their_times() {
        let (old, new) = (WALL - 91 * DAY_MS, WALL - 89 * DAY_MS);
        assert!(matches!(take(old, "{}"), Taken::Expired));
        assert!(matches!(take(old, &format!("{{\"@timestamp\":{old}}}")), Taken::Expired));
        assert!(matches!(take(old, &format!("{{\"@timestamp\":{new}}}")), Taken::WaitsFor { .. }));
        assert!(matches!(take(new, &format!("{{\"@timestamp\":{old}}}")), Taken::WaitsFor { .. }));
    }

    #[test]
    fn what_is_no_object_is_rejected_with_its_reason() {
        for (value, reason) in [("", "not_json"), ("{", "not_json"), ("7", "not_an_object"), ("[{}]", "not_an_object")]
        {
            let Taken::Rejected { reject, .. } = take(WALL, value) else { panic!("`{value}` was taken") };
            assert_eq!(reject.reason.as_str(), reason, "{value}");
        }
    }
}
