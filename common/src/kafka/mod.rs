//! Kafka clients: the operator's options made into a librdkafka configuration that keeps the promises.

mod login;
mod token;
mod oauth;
mod client;
mod names;
mod options;
mod refused;
pub mod cut_off;
pub mod settings;
mod log;
mod reports;

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::{Secret, nearest, without_login};
use oauth::{EXTENSIONS, TOKEN_FILE};
use options::{FILE, canonical, is_secret};

pub use client::{LogsIn, create, create_admin};
pub use log::Log;
pub use oauth::Login;
pub use options::Options;
pub use reports::Reports;

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Producer,
    Consumer,
}

/// One thing that is wrong with the brokers or options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka.{path}: {what}; {remedy}")]
pub struct OptionFault {
    /// Below `kafka`: `options.acks`, `brokers[0]`.
    pub path: String,
    pub what: String,
    pub remedy: String,
}

/// All that is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct OptionFaults(pub Vec<OptionFault>);

impl OptionFault {
    fn option(name: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: format!("options.{name}"), what: what.into(), remedy: remedy.into() }
    }
}

/// The configuration of a producer: idempotent, acknowledged by all replicas in sync, never giving a record up.
///
/// # Errors
/// Everything [`check`] finds, and secret files that cannot be read.
pub fn producer(program: &str, brokers: &[String], options: &Options) -> Result<ClientConfig, OptionFaults> {
    let fixed = [("enable.idempotence", "true"), ("request.required.acks", "all"), ("message.timeout.ms", "0")];
    let defaults = [("compression.codec", "lz4"), ("queue.buffering.max.ms", "10")];
    build(Role::Producer, program, brokers, options, &fixed, &defaults)
}

/// The configuration of a member of `group`: cooperative, from the earliest record on, committing only what it is told to.
///
/// # Errors
/// Everything [`check`] finds, and secret files that cannot be read.
pub fn consumer(
    program: &str,
    brokers: &[String],
    group: &str,
    options: &Options,
) -> Result<ClientConfig, OptionFaults> {
    let fixed = [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ];
    build(Role::Consumer, program, brokers, options, &fixed, &[])
}

/// Drops clients on a thread of their own: that waits for brokers, which may never answer.
pub fn retire<T: Send + 'static>(clients: T) {
    if let Err(error) = std::thread::Builder::new().name("retire".to_owned()).spawn(move || drop(clients)) {
        tracing::warn!(%error, "no thread to close Kafka clients on");
    }
}

/// Sets what the operator did not set; `name` may be an alias.
pub fn set_default(config: &mut ClientConfig, name: &str, value: &str) {
    let name = canonical(name);
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

/// Everything that is wrong with brokers and options, without touching files or network.
pub fn check(role: Role, brokers: &[String], options: &Options) -> Vec<OptionFault> {
    let mut faults = check_brokers(brokers);
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in options.iter() {
        let base = match name.strip_suffix(FILE) {
            Some(base) if is_secret(base) => base,
            _ => name,
        };
        if let Some(other) = seen.insert(canonical(base), name) {
            faults.push(OptionFault::option(name, format!("says the same as `{other}`"), "keep one of the two"));
        }
        faults.extend(check_option(role, name, base, value));
    }
    faults.extend(login::check(options));
    faults
}

fn check_brokers(brokers: &[String]) -> Vec<OptionFault> {
    let fault = |path: String, what: String| OptionFault { path, what, remedy: "write host:port".to_owned() };
    if brokers.is_empty() {
        return vec![fault("brokers".to_owned(), "has no entry".to_owned())];
    }
    let is_sound = |broker: &str| {
        let (host, port) = match broker.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') && host.ends_with(']') => (host, port),
            Some(_) => return false,
            None => (broker, "9092"),
        };
        !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let mut faults = Vec::new();
    for (index, entry) in brokers.iter().enumerate() {
        // A list in one environment variable comes as one entry with commas.
        if let Some(bad) = entry.split(',').find(|broker| !is_sound(broker.trim())) {
            faults.push(fault(
                format!("brokers[{index}]"),
                format!("`{}` is not a broker's address", without_login(bad)),
            ));
        }
    }
    faults
}

fn check_option(role: Role, name: &str, base: &str, value: &str) -> Option<OptionFault> {
    if let Some((what, remedy)) = refused::refusal(role, canonical(base), value) {
        return Some(OptionFault::option(name, what, remedy));
    }
    if base != name {
        return None;
    }
    if name == EXTENSIONS {
        let why = oauth::extensions(value).err()?;
        return Some(OptionFault::option(name, why, "write for example `logicalCluster=lkc-1,identityPoolId=pool-1`"));
    }
    // The library is asked, so that what is accepted here is accepted when the client is made.
    let result = ClientConfig::new().set(name, value).create_native_config();
    let refusal = match result {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let names = names::NAMES.iter().map(|(known, _, _)| *known);
            let remedy = match nearest(name, names) {
                _ if TOKEN_FILE.strip_suffix(FILE) == Some(name) => {
                    format!("name a file that holds it in `{TOKEN_FILE}`")
                }
                Some(near) => format!("did you mean `{near}`?"),
                None => "see librdkafka's configuration page for the names".to_owned(),
            };
            Some(OptionFault::option(name, "unknown option", remedy))
        }
        Err(KafkaError::ClientConfig(_, why, ..)) if !is_secret(name) => {
            Some(OptionFault::option(name, format!("cannot be `{value}`: {why}"), "correct the value"))
        }
        Err(_) => Some(OptionFault::option(name, "has a value that librdkafka refuses", "correct the value")),
    };
    refusal.or_else(|| foreign(role, name))
}

/// An option of the other kind of client would silently do nothing.
fn foreign(role: Role, name: &str) -> Option<OptionFault> {
    let index = names::NAMES.binary_search_by_key(&name, |(known, _, _)| known).ok()?;
    let (what, remedy) = match (role, names::NAMES[index].1) {
        (Role::Producer, 'C') => ("is an option of consumers", "remove it"),
        (Role::Consumer, 'P') => ("is an option of producers", "remove it"),
        _ => return None,
    };
    Some(OptionFault::option(name, what, remedy))
}

fn build(
    role: Role,
    program: &str,
    brokers: &[String],
    options: &Options,
    fixed: &[(&str, &str)],
    defaults: &[(&str, &str)],
) -> Result<ClientConfig, OptionFaults> {
    let mut faults = check(role, brokers, options);
    let mut config = ClientConfig::new();
    for (name, value) in options.iter() {
        match name.strip_suffix(FILE) {
            // Ours; what stands for them is set below.
            _ if [TOKEN_FILE, EXTENSIONS].contains(&name) => {}
            Some(base) if is_secret(base) => match Secret::from_file(value).read() {
                Ok(secret) => {
                    config.set(canonical(base), secret);
                }
                Err(error) => faults.push(OptionFault::option(name, error.to_string(), "")),
            },
            _ => {
                config.set(canonical(name), value);
            }
        }
    }
    if !faults.is_empty() {
        return Err(OptionFaults(faults));
    }
    if let Some(file) = options.get(TOKEN_FILE) {
        // Faulty ones were told above.
        let extensions = options.get(EXTENSIONS).map(oauth::extensions).transpose().ok().flatten().unwrap_or_default();
        oauth::set(&mut config, file, &extensions);
    }
    let addresses: Vec<&str> = brokers.iter().flat_map(|entry| entry.split(',')).map(str::trim).collect();
    config.set("metadata.broker.list", addresses.join(","));
    for (name, value) in fixed {
        config.set(*name, *value);
    }
    let everywhere = [
        ("client.id", program),
        ("socket.keepalive.enable", "true"),
        ("allow.auto.create.topics", "false"),
        ("statistics.interval.ms", "0"),
    ];
    for (name, value) in defaults.iter().chain(&everywhere) {
        set_default(&mut config, name, value);
    }
    // What goes further is decided by the log filter; by itself rdkafka would ask the log crate, which is silent here.
    config.set_log_level(RDKafkaLogLevel::Info);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers() -> Vec<String> {
        vec!["a:9092".to_owned(), "b".to_owned()]
    }

    fn check_refused(role: Role, cases: &[(&str, &str, &str)]) {
        for (name, value, expected) in cases {
            let faults = check(role, &brokers(), &Options::from_iter([(*name, *value)]));
            assert_eq!(faults.len(), 1, "{name}={value}");
            let printed = faults[0].to_string();
            assert!(printed.starts_with(&format!("kafka.options.{name}: ")) && printed.contains(expected), "{printed}");
        }
    }

    #[test]
    fn options_that_break_delivery_are_refused() {
        check_refused(
            Role::Producer,
            &[
                ("acks", "1", "loses records"),
                ("request.required.acks", "0", "loses records"),
                ("enable.idempotence", "false", "twice"),
                ("message.timeout.ms", "30000", "gives records up"),
                ("delivery.timeout.ms", "30000", "gives records up"),
                ("retries", "3", "gives records up"),
                ("max.in.flight", "6", "from 1 to 5"),
                ("partitioner", "random", "no effect"),
                ("queuing.strategy", "lifo", "order"),
                ("bootstrap.servers", "x:1", "kafka.brokers"),
                ("dr_msg_cb", "1", "cannot be set"),
                ("transactional.id", "t", "no effect"),
            ],
        );
        check_refused(
            Role::Consumer,
            &[
                ("enable.auto.commit", "true", "not indexed yet"),
                ("enable.auto.offset.store", "true", "when they are read"),
                ("auto.offset.reset", "latest", "skips"),
                ("auto.offset.reset", "error", "skips"),
                ("group.id", "g", "kafka.group"),
                ("partition.assignment.strategy", "range", "rebalance"),
                ("group.protocol", "consumer", "rebalances"),
            ],
        );
    }

    #[test]
    fn harmless_options_and_repeated_defaults_stand() {
        let options =
            [("acks", "-1"), ("enable.idempotence", "true"), ("linger.ms", "50"), ("compression.type", "zstd")];
        let config = producer("shipper", &brokers(), &Options::from_iter(options)).unwrap();
        assert_eq!(config.get("queue.buffering.max.ms"), Some("50"));
        assert_eq!(config.get("compression.codec"), Some("zstd"));
        assert_eq!(config.get("metadata.broker.list"), Some("a:9092,b"));
        assert_eq!(config.get("message.timeout.ms"), Some("0"));
        config.create_native_config().unwrap();
        let options = [("auto.offset.reset", "earliest"), ("session.timeout.ms", "45000")];
        let config = consumer("indexer", &brokers(), "g", &Options::from_iter(options)).unwrap();
        assert_eq!(config.get("group.id"), Some("g"));
        config.create_native_config().unwrap();
    }

    #[test]
    fn unknown_names_bad_values_and_options_of_the_other_client_are_told() {
        check_refused(
            Role::Producer,
            &[
                ("liger.ms", "5", "did you mean `linger.ms`?"),
                ("compression", "lz4", "unknown option"),
                ("linger.ms", "soon", "soon"),
                ("compression.type", "rar", "rar"),
                ("fetch.min.bytes", "1", "option of consumers"),
            ],
        );
        check_refused(Role::Consumer, &[("linger.ms", "5", "option of producers")]);
        let faults = check(
            Role::Producer,
            &brokers(),
            &Options::from_iter([("linger.ms", "1"), ("queue.buffering.max.ms", "2")]),
        );
        assert!(faults[0].what.contains("says the same as"), "{faults:?}");
    }

    #[test]
    fn brokers_are_addresses() {
        let faults = |entries: &[&str]| {
            let brokers: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
            check(Role::Producer, &brokers, &Options::default()).len()
        };
        assert_eq!(faults(&["a:9092", "b", "[::1]:9092", "c:1, d:2"]), 0);
        assert_eq!(faults(&[]), 1);
        for bad in ["", "a:x", "http://a:1", "a:0", "::1:9092", "a b:1", ":9092"] {
            assert_eq!(faults(&[bad]), 1, "{bad}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let from_file = Options::from_iter([("sasl.password_file", path.to_str().unwrap())]);
        let config = producer("shipper", &brokers(), &from_file).unwrap();
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        let given = Options::from_iter([
            ("sasl.password", "hunter2"),
            ("sasl.oauthbearer.client.secret", "hunter2"),
            ("ssl.key.pem", "hunter2"),
        ]);
        let printed = format!(
            "{given:?} {} {:?}",
            serde_json::to_string(&given).unwrap(),
            check(Role::Producer, &brokers(), &given)
        );
        assert!(!printed.contains("hunter2"), "{printed}");
        let absent = Options::from_iter([("sasl.password_file", "/nowhere/at/all")]);
        assert!(producer("shipper", &brokers(), &absent).unwrap_err().0[0].what.contains("/nowhere/at/all"));
    }

    #[test]
    fn every_name_we_speak_of_is_known_to_the_library_or_listed() {
        let known = |name: &str| names::NAMES.binary_search_by_key(&name, |(known, _, _)| known).is_ok();
        assert!(names::NAMES.is_sorted_by_key(|(name, _, _)| *name));
        for name in refused::ruled_names().filter(|name| !name.starts_with("test.mock")) {
            assert!(known(name) && canonical(name) == name, "{name}");
        }
    }
}
