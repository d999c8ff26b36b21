//! Reads one file as the shipper does, and sends nothing: which record has a byte.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use millrace_common::ledger::sources::SourceRow;
use millrace_common::record::{RecordId, SourceId};

use crate::checkpoint::row::Row;
use crate::checkpoint::store::Store;
use crate::config::Config;
use crate::discover::Found;
use crate::ledger::Announcer;
use crate::ledger::outbox::Progress;
use crate::produce::{Broker, Delivery, Outgoing, Refused};
use crate::read::{Disk, FileStat};
use crate::tail::{Now, Tailer};

/// The record that has the byte at `position`, with its value. `None`: no record is made of it, or not yet.
///
/// `row` is the file's; `stat` and `path` are what is there now. Ends of records that no line end forced (an idle flush) are
/// known only behind the acknowledged position: before it, such a record comes out as part of a longer one.
pub(super) fn record_at(config: &Config, row: &Row, path: &Path, stat: FileStat, position: u64) -> Option<Made> {
    let input = config.inputs.iter().position(|input| input.id == row.input)?;
    let host_name = crate::pipeline::host_name(config);
    let from_start = Row { acknowledged: 0, open: Default::default(), carry: None, carried: None, ..row.clone() };
    let made = Rc::new(RefCell::new(None));
    let broker = Collector { position, made: Rc::clone(&made), deliveries: Vec::new() };
    let settings = config.tail_settings(String::new(), host_name, usize::MAX, u64::MAX);
    let mut tailer = Tailer::new(settings, Disk, broker, Instantly::default(), Box::new(Nobody), vec![from_start]);
    let mut now = Now { wall_ms: row.last_seen_ms, mono: Duration::ZERO };
    if row.acknowledged >= stat.size {
        // The last event was ended, too.
        tailer.flush_at_end();
    }
    tailer.apply_scan(vec![Found { input, path: path.to_owned(), stat }], &[], now);
    while made.borrow().is_none() {
        let has_more = tailer.turn(now, Duration::ZERO);
        if !has_more && tailer.is_idle() {
            tailer.look_around(now);
            if tailer.is_idle() {
                break;
            }
        }
        now.mono += Duration::from_millis(1);
    }
    made.take()
}

/// A record as it would be sent.
#[derive(Debug)]
pub(super) struct Made {
    pub id: RecordId,
    pub value: Vec<u8>,
}

/// Takes every record and keeps the one that is looked for.
struct Collector {
    position: u64,
    made: Rc<RefCell<Option<Made>>>,
    deliveries: Vec<Delivery>,
}

impl Broker for Collector {
    fn num_partitions(&self, _topic: usize) -> Option<u32> {
        Some(1)
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), Refused> {
        if let Some(id) = RecordId::decode(record.key)
            && id.range.contains(self.position)
        {
            let value = record.value.unwrap_or_default().to_vec();
            self.made.borrow_mut().get_or_insert(Made { id, value });
        }
        self.deliveries.push(Delivery { token: record.token, timestamp_ms: record.timestamp_ms, error: None });
        Ok(())
    }

    fn poll(&mut self, _wait: Duration, deliveries: &mut Vec<Delivery>) {
        deliveries.append(&mut self.deliveries);
    }
}

/// A disk that keeps nothing, at once.
#[derive(Default)]
struct Instantly(u64);

impl Store for Instantly {
    fn is_ready(&self) -> bool {
        true
    }

    fn save(&mut self, version: u64, _rows: Vec<Row>) {
        self.0 = version;
    }

    fn durable(&self) -> u64 {
        self.0
    }

    fn num_failures(&self) -> u64 {
        0
    }
}

struct Nobody;

impl Announcer for Nobody {
    fn tell(&mut self, _id: SourceId, _row: &SourceRow, _is_held: bool) {}

    fn note(&mut self, _id: SourceId, _progress: Progress) {}

    fn is_announced(&self, _id: SourceId) -> bool {
        true
    }

    fn take_announced(&mut self) -> Vec<SourceId> {
        Vec::new()
    }
}
