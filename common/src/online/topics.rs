//! Holds a topic against what delivery needs. Pure.

use super::Finding;
use crate::kafka::settings::Settings;

const HOUR_MS: i64 = 3_600_000;
/// An outage of a night and a day must fit.
const MIN_RETENTION_MS: i64 = 24 * HOUR_MS;

/// What the brokers say of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub num_partitions: usize,
    /// Of the partition that has the fewest.
    pub num_replicas: usize,
    /// `None`: they are not told without the right DescribeConfigs.
    pub settings: Option<Settings>,
}

impl Topic {
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref()?.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    /// For how long records stay; `None`: for ever, or it is not told.
    pub fn retention_ms(&self) -> Option<i64> {
        let deletes = self.setting("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
        self.number("retention.ms").filter(|&ms| deletes && ms >= 0)
    }

    pub fn place(&self) -> String {
        place(&self.name)
    }
}

pub fn place(topic: &str) -> String {
    format!("topic `{topic}`")
}

/// It is not there.
pub fn missing(name: &str) -> Finding {
    let remedy = "create it with replication 3 and min.insync.replicas=2, correct the name, or grant Describe";
    Finding::breach(place(name), "does not exist, or may not be seen", "nothing flows", remedy)
}

/// What every topic of ours needs, so that an acknowledged record is not lost.
pub fn durability(topic: &Topic) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut breach = |what: String, stake: &str, remedy: &str| {
        found.push(Finding::breach(topic.place(), what, stake, remedy));
    };
    if topic.num_replicas < 3 {
        let stake = match topic.num_replicas {
            ..=1 => "one lost disk loses acknowledged records, one broker down stops the flow",
            _ => "while one broker is down, another one lost loses records, or nothing can be written",
        };
        breach(format!("replication factor is {}", topic.num_replicas), stake, "give it 3 replicas");
    }
    if let Some(least) = topic.number("min.insync.replicas") {
        if least < 2 {
            let stake = "a record counts as acknowledged while one broker alone has it, and is lost with that one";
            breach(format!("min.insync.replicas is {least}"), stake, "set it to 2");
        } else if least >= topic.num_replicas as i64 {
            let what = format!("min.insync.replicas is {least} of {} replicas", topic.num_replicas);
            breach(what, "one broker down stops the flow", "give it more replicas");
        }
    }
    if topic.setting("unclean.leader.election.enable") == Some("true") {
        let stake = "a broker that missed acknowledged records may become leader, and they are gone";
        breach("unclean.leader.election.enable is true".to_owned(), stake, "set it to false");
    }
    if topic.settings.is_none() {
        let stake = "min.insync.replicas, unclean elections, max.message.bytes and retention are not known";
        found.push(Finding::warning(topic.place(), "its settings are not told", stake, "grant DescribeConfigs on it"));
    }
    found
}

/// Whether records of `largest_bytes` fit, and stay long enough.
pub fn records(topic: &Topic, largest_bytes: u64) -> Vec<Finding> {
    let mut found = durability(topic);
    if let Some(max) = topic.number("max.message.bytes")
        && (max as u64) < largest_bytes
    {
        let stake = "the broker refuses larger records, and their files wait for ever";
        let remedy = format!("set it to {largest_bytes} or more, or lower `limits.max_record`");
        found.push(Finding::breach(topic.place(), format!("max.message.bytes is {max}"), stake, remedy));
    }
    found.extend(short_retention(topic));
    found
}

pub fn short_retention(topic: &Topic) -> Option<Finding> {
    let ms = topic.retention_ms().filter(|&ms| ms < MIN_RETENTION_MS)?;
    let what = format!("retention.ms is {ms}, less than a day");
    let stake = "an outage of Elasticsearch that is longer loses records";
    Some(Finding::warning(topic.place(), what, stake, "make it longer than your longest outage"))
}

/// Whether dead letters can be had back: as large and as long as the records of `source`.
pub fn dead_letters(letters: &Topic, source: &Topic) -> Vec<Finding> {
    let mut found = Vec::new();
    let larger = |name| Some((letters.number(name)?, source.number(name)?)).filter(|(ours, theirs)| ours < theirs);
    if let Some((ours, theirs)) = larger("max.message.bytes") {
        let what = format!("max.message.bytes is {ours}, that of `{}` is {theirs}", source.name);
        let stake = "letters that are larger are parked in parts";
        found.push(Finding::warning(letters.place(), what, stake, format!("set it to {theirs}")));
    }
    // Without an end is longer than any.
    let kept = letters.retention_ms();
    let source_kept = source.retention_ms().unwrap_or(i64::MAX);
    if let Some(kept) = kept.filter(|&kept| kept < source_kept && source.settings.is_some()) {
        let what = format!("retention.ms is {kept}, less than that of `{}`", source.name);
        let stake = "letters are gone before the records they stand for";
        found.push(Finding::warning(letters.place(), what, stake, "keep them at least as long"));
    }
    found
}

/// A topic of the ledger, which programs make where it is missing.
pub fn ledger(topic: &Topic) -> Vec<Finding> {
    let mut found = durability(topic);
    for (name, wanted, stake) in [
        ("cleanup.policy", "compact", "facts about files are deleted with age, and the audit sees holes"),
        ("message.timestamp.type", "LogAppendTime", "whether a host lives is judged by that host's own clock"),
    ] {
        if let Some(value) = topic.setting(name).filter(|&value| value != wanted) {
            let remedy = format!("set it to {wanted}");
            found.push(Finding::breach(topic.place(), format!("{name} is {value}"), stake, remedy));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 6] = [
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", "1048588"),
        ("retention.ms", "604800000"),
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "CreateTime"),
    ];

    fn topic(num_replicas: usize, changes: &[(&str, &str)]) -> Topic {
        let settings = GOOD.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Topic { name: "logs".to_owned(), num_partitions: 6, num_replicas, settings: Some(settings.collect()) }
    }

    fn check(found: &[Finding], expected: &[&str]) {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        lines.iter().zip(expected).for_each(|(line, start)| assert!(line.starts_with(start), "{line}"));
    }

    #[test]
    fn a_topic_that_keeps_what_it_acknowledged_has_no_finding() {
        check(&records(&topic(3, &[]), 1_000_000), &[]);
        let compacted = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
        check(&ledger(&topic(3, &compacted)), &[]);
        check(&dead_letters(&topic(3, &[]), &topic(3, &[])), &[]);
        check(&dead_letters(&topic(3, &[("retention.ms", "-1")]), &topic(3, &[])), &[]);
    }

    #[test]
    fn each_breach_of_durability_is_named() {
        check(
            &durability(&topic(1, &[])),
            &["breach: topic `logs`: replication factor is 1", "breach: topic `logs`: min.insync.replicas is 2 of 1"],
        );
        check(
            &durability(&topic(3, &[("min.insync.replicas", "1")])),
            &["breach: topic `logs`: min.insync.replicas is 1:"],
        );
        check(
            &durability(&topic(3, &[("min.insync.replicas", "3")])),
            &["breach: topic `logs`: min.insync.replicas is 3 of 3"],
        );
        check(
            &durability(&topic(3, &[("unclean.leader.election.enable", "true")])),
            &["breach: topic `logs`: unclean.leader"],
        );
        check(
            &durability(&Topic { settings: None, ..topic(3, &[]) }),
            &["warning: topic `logs`: its settings are not told"],
        );
    }

    #[test]
    fn sizes_and_times_are_held_against_the_records() {
        check(&records(&topic(3, &[]), 1_048_589), &["breach: topic `logs`: max.message.bytes is 1048588"]);
        check(
            &records(&topic(3, &[("retention.ms", "3600000")]), 1),
            &["warning: topic `logs`: retention.ms is 3600000"],
        );
        check(&records(&topic(3, &[("retention.ms", "1"), ("cleanup.policy", "compact")]), 1), &[]);
        let small = topic(3, &[("max.message.bytes", "1000"), ("retention.ms", "86400000")]);
        check(
            &dead_letters(&small, &topic(3, &[])),
            &["warning: topic `logs`: max.message.bytes is 1000", "warning: topic `logs`: retention.ms is 86400000"],
        );
        check(
            &dead_letters(&topic(3, &[]), &topic(3, &[("retention.ms", "-1")])),
            &["warning: topic `logs`: retention.ms"],
        );
    }

    #[test]
    fn a_ledger_that_forgets_or_trusts_foreign_clocks_is_named() {
        check(
            &ledger(&topic(3, &[])),
            &[
                "breach: topic `logs`: cleanup.policy is delete",
                "breach: topic `logs`: message.timestamp.type is CreateTime",
            ],
        );
    }
}
