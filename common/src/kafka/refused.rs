//! The librdkafka options that would break delivery, with the reason.

use super::Role;

/// What may stand in an option, if it may stand there at all.
enum Only {
    /// Nothing: it is not the operator's to set here.
    Never,
    /// One of these values.
    Values(&'static [&'static str]),
    /// A whole number from 1 to this one.
    UpTo(u32),
}

struct Rule {
    /// Canonical names, aliases resolved.
    names: &'static [&'static str],
    only: Only,
    what: &'static str,
    remedy: &'static str,
}

const fn never(names: &'static [&'static str], what: &'static str, remedy: &'static str) -> Rule {
    Rule { names, only: Only::Never, what, remedy }
}

const fn values(names: &'static [&'static str], values: &'static [&'static str], what: &'static str) -> Rule {
    Rule { names, only: Only::Values(values), what, remedy: "remove it" }
}

const BOTH: &[Rule] = &[
    never(&["metadata.broker.list"], "is a setting of its own", "set `kafka.brokers`"),
    never(&["builtin.features", "enabled_events", "opaque"], "cannot be set in a file", "remove it"),
    never(
        &["test.mock.num.brokers", "test.mock.broker.rtt"],
        "would send everything to a broker that exists only in memory",
        "remove it",
    ),
    never(&["plugin.library.paths"], "would load foreign code into the process", "remove it"),
    never(
        &["sasl.oauthbearer.method"],
        "asks a provider for tokens (OIDC), which this build of librdkafka cannot: it has no HTTP client",
        "let an agent beside this program fetch them, and name its file in `sasl.oauthbearer.token_file`",
    ),
    never(
        &["sasl.oauthbearer.config", "enable.sasl.oauthbearer.unsecure.jwt"],
        "is about tokens that are unsigned",
        "remove it, and see `sasl.oauthbearer.token_file`",
    ),
];

const PRODUCER: &[Rule] = &[
    values(&["request.required.acks"], &["all", "-1"], "loses records when a broker fails before the others have them"),
    values(&["enable.idempotence"], &["true"], "lets a retry write a record twice or out of order"),
    values(&["message.timeout.ms"], &["0"], "gives records up after that time, while a broker may be down for longer"),
    values(&["message.send.max.retries"], &["2147483647"], "gives records up after that many attempts"),
    Rule {
        names: &["max.in.flight.requests.per.connection"],
        only: Only::UpTo(5),
        what: "is more than an idempotent producer may have",
        remedy: "write a number from 1 to 5",
    },
    values(&["enable.gapless.guarantee"], &["false"], "ends the producer where this program goes back and sends again"),
    values(&["queuing.strategy"], &["fifo"], "changes the order of records"),
    values(&["delivery.report.only.error"], &["false"], "hides the acknowledgements that positions wait for"),
    never(&["produce.offset.report"], "changes the acknowledgements that positions wait for", "remove it"),
    never(
        &["partitioner", "sticky.partitioning.linger.ms", "msg_order_cmp"],
        "has no effect: a source keeps to one partition, so that its order holds",
        "remove it, or see `partitioning`",
    ),
    never(
        &["transactional.id", "transaction.timeout.ms"],
        "has no effect: records are made unique by their ids, not by transactions",
        "remove it",
    ),
];

const CONSUMER: &[Rule] = &[
    never(&["group.id"], "is a setting of its own", "set `kafka.group`"),
    values(
        &["enable.auto.commit", "auto.commit.enable"],
        &["false"],
        "commits records that are not indexed yet, which loses them when the process ends",
    ),
    values(
        &["enable.auto.offset.store"],
        &["false"],
        "marks records as finished when they are read, which loses them when the process ends",
    ),
    never(&["auto.commit.interval.ms"], "has no effect: offsets are committed when records are finished", "remove it"),
    values(
        &["auto.offset.reset"],
        &["earliest", "smallest", "beginning"],
        "skips what was written before the group's first commit",
    ),
    values(
        &["partition.assignment.strategy"],
        &["cooperative-sticky"],
        "takes all partitions away at every rebalance, and cannot be mixed with the members that run",
    ),
    values(&["group.protocol"], &["classic"], "decides on rebalances elsewhere, before open batches are finished"),
    values(&["enable.partition.eof"], &["false"], "adds events that are no records"),
    never(
        &["offset.store.method", "offset.store.path", "offset.store.sync.interval.ms"],
        "keeps offsets outside Kafka, where the next owner of a partition does not find them",
        "remove it",
    ),
];

/// Why `value` is refused for the option `name` (aliases resolved) and what to do, or `None` if it may stand.
pub(super) fn refusal(role: Role, name: &str, value: &str) -> Option<(&'static str, String)> {
    if name.ends_with("_cb") {
        return Some(("cannot be set in a file", "remove it".to_owned()));
    }
    let own = match role {
        Role::Producer => PRODUCER,
        Role::Consumer => CONSUMER,
    };
    let rule = BOTH.iter().chain(own).find(|rule| rule.names.contains(&name))?;
    let value = value.trim();
    let stands = match rule.only {
        Only::Never => false,
        Only::Values(values) => values.iter().any(|allowed| value.eq_ignore_ascii_case(allowed)),
        Only::UpTo(most) => value.parse::<u32>().is_ok_and(|number| (1..=most).contains(&number)),
    };
    if stands {
        return None;
    }
    let remedy = match rule.only {
        Only::Values([only, ..]) => format!("{} (it is always {only} here)", rule.remedy),
        Only::Values([]) | Only::Never | Only::UpTo(_) => rule.remedy.to_owned(),
    };
    Some((rule.what, remedy))
}

/// All names that rules are about, for the test that none is misspelt.
#[cfg(test)]
pub(super) fn ruled_names() -> impl Iterator<Item = &'static str> {
    BOTH.iter().chain(PRODUCER).chain(CONSUMER).flat_map(|rule| rule.names).copied()
}
