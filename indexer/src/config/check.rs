//! From the raw settings to checked ones. All faults are reported together.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use elasticsearch::http::Url;
use millrace_common::config::{self, Draft, Faults, Secret, Setting, Written};
use millrace_common::kafka::{self, Role};
use millrace_common::telemetry::admin;

use super::raw::{self, Compression, DocumentId, Raw, Verify};
use super::{Authentication, Bulk, ClientCertificate, Config, Elasticsearch, Expect, Kafka, Memory, Rule};
use crate::bulk::batch::Limits;
use crate::map::{Plan, PlanError, RuleOptions, ServerVersion, TemplateSet, Unmapped};
use crate::route::{AcceptTime, Pattern};
use crate::templates::{self, ReadError};

/// Why the settings cannot be used: one line per fault.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Settings(Faults),
    #[error("{}", join(.0, .1))]
    Templates(Option<Faults>, Box<ReadError>),
}

fn join(faults: &Option<Faults>, error: &ReadError) -> String {
    let faults = faults.as_ref().map(|faults| format!("{faults}\n")).unwrap_or_default();
    format!("{faults}{error}")
}

/// Smallest memory with which requests of some size still fit.
const MIN_MEMORY: u64 = 32 << 20;
/// Shorter pauses would be a load of their own on a server in trouble.
const MIN_BACKOFF: Duration = Duration::from_millis(500);

/// Reads and checks all settings, template files included. `name` is the file's name for messages, `text` its content (empty
/// without a file), `settings` the flags.
pub fn load(
    name: &str,
    text: &str,
    settings: &[Setting],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problem> {
    let Draft { value, mut faults, written } = config::draft::<Raw>(name, text, settings, env);
    let checked = value.map(|raw| {
        let templates = read_templates(&raw, &mut faults);
        let files = files(&raw);
        (check(raw, &mut faults).map(|config| Config { written, files, ..config }), templates)
    });
    let (config, templates) = checked.unzip();
    match templates.unwrap_or(Ok(None)) {
        Ok(templates) => {
            let config = config.flatten().map(|config| Config { templates, ..config });
            if let Some(config) = &config {
                compile_plans(config, &mut faults);
            }
            faults.finish(config).map_err(Problem::Settings)
        }
        Err(error) => Err(Problem::Templates((!faults.is_empty()).then_some(faults), Box::new(error))),
    }
}

/// The files that the settings name.
fn files(raw: &Raw) -> BTreeSet<PathBuf> {
    let tls = &raw.elasticsearch;
    let plain = [&tls.ca_file, &tls.client_certificate_file, &tls.client_key_file, &raw.templates.dir];
    let secrets = [&tls.api_key, &tls.bearer_token, &tls.password].into_iter().flatten().filter_map(Secret::file);
    let named = plain.into_iter().flatten().cloned().chain(secrets.map(PathBuf::from));
    named.chain(raw.kafka.options.files()).collect()
}

fn read_templates(raw: &Raw, faults: &mut Faults) -> Result<Option<TemplateSet>, ReadError> {
    let Some(dir) = &raw.templates.dir else { return Ok(None) };
    if !dir.is_dir() {
        faults
            .at("templates.dir")
            .add(format!("`{}` is not a folder", dir.display()), "name the folder with the template files");
        return Ok(None);
    }
    templates::read_dir(dir).map(Some)
}

/// Compiles the plan that each rule would get from the template files, as the run will do for real names.
fn compile_plans(config: &Config, faults: &mut Faults) {
    for (number, rule) in config.rules.iter().enumerate() {
        let sample = rule.index.sample(&rule.defaults);
        let Some(name) = sample.filter(|_| config.templates.is_some()) else { continue };
        // Without a template of ours the cluster's own rule, and a name from real fields may still match.
        let Some(composed) = config.templates.as_ref().and_then(|set| set.compose(&name)) else { continue };
        let plan = Plan::compile(&composed.mappings, &composed.settings, &rule.options, ServerVersion::default());
        match plan {
            Ok(_) => {}
            Err(PlanError::Mapping { path, what }) => faults
                .at("templates.dir")
                .add(format!("template `{}`: {path}: {what}", composed.name), "correct the template"),
            Err(error @ PlanError::FoldInto { .. }) => faults.at(&format!("rules[{number}].fold_into")).add(
                format!("{error} (template `{}`)", composed.name),
                "name a field that is `flattened` or an object with `enabled: false`",
            ),
        }
    }
}

fn check(raw: Raw, faults: &mut Faults) -> Option<Config> {
    check_kafka(&raw, faults);
    let elasticsearch = check_elasticsearch(raw.elasticsearch, faults);
    let memory = raw.limits.memory.bytes();
    if memory < MIN_MEMORY {
        faults.at("limits.memory").add("too small", "give at least 32MiB");
    }
    let bulk = check_bulk(&raw.bulk, Memory::divide(memory), faults);
    let mut raw_rules = raw.rules;
    if raw_rules.is_empty() {
        raw_rules.push(raw::Rule::default());
    }
    let rules: Vec<_> = raw_rules.into_iter().enumerate().map(|(i, rule)| check_rule(i, rule, faults)).collect();
    for topic in &raw.kafka.topics {
        if !rules.iter().flatten().any(|rule| rule.topics.is_empty() || rule.topics.contains(topic))
            && rules.iter().all(Option::is_some)
        {
            faults.at("rules").add(format!("no rule is for topic `{topic}`"), "add one, or a rule without `topics`");
        }
    }
    if let Err(what) = admin::check_listen(&raw.admin.listen) {
        faults.at("admin.listen").add(what, "write host:port");
    }
    if raw.dead_letter.topic.is_empty() || raw.kafka.topics.contains(&raw.dead_letter.topic) {
        faults.at("dead_letter.topic").add("must be a topic that is not read", "name another topic");
    }
    let expect = check_expect(raw.expect, faults);
    let ledger = raw.ledger == raw::Ledger::On;
    if !ledger && !expect.is_empty() {
        faults.at("expect").add("needs the ledger, which is off", "remove one of them");
    }
    Some(Config {
        kafka: Kafka {
            brokers: raw.kafka.brokers,
            topics: raw.kafka.topics,
            group: raw.kafka.group,
            options: raw.kafka.options,
        },
        elasticsearch: elasticsearch?,
        bulk: bulk?,
        templates: None,
        apply_templates: raw.templates.apply.unwrap_or(true),
        rules: rules.into_iter().collect::<Option<_>>()?,
        dead_letter_topic: raw.dead_letter.topic,
        memory: Memory::divide(memory),
        shutdown_deadline: raw.shutdown.deadline.duration(),
        admin_listen: raw.admin.listen,
        ledger,
        expect,
        written: Written::default(),
        files: BTreeSet::new(),
    })
}

fn check_expect(raw: Vec<raw::Expect>, faults: &mut Faults) -> Vec<Expect> {
    let mut expected: Vec<Expect> = Vec::new();
    for (number, entry) in raw.into_iter().enumerate() {
        if entry.hosts.is_empty() {
            faults.at(&format!("expect[{number}].hosts")).add("has no entry", "name at least one host");
        }
        for (i, host) in entry.hosts.into_iter().enumerate() {
            let path = format!("expect[{number}].hosts[{i}]");
            if host.is_empty() {
                faults.at(&path).add("is empty", "give the name or id of a host");
            } else if expected.iter().any(|known| known.host == host) {
                faults.at(&path).add(format!("`{host}` is named twice"), "name it once");
            }
            expected.push(Expect { host, interval: entry.interval.map(|interval| interval.duration()) });
        }
    }
    expected
}

fn check_kafka(raw: &Raw, faults: &mut Faults) {
    for fault in kafka::check(Role::Consumer, &raw.kafka.brokers, &raw.kafka.options) {
        faults.at(&format!("kafka.{}", fault.path)).add(fault.what, fault.remedy);
    }
    if raw.kafka.topics.is_empty() {
        faults.at("kafka.topics").add("has no entry", "name at least one topic");
    }
    let mut seen = HashSet::new();
    for (i, topic) in raw.kafka.topics.iter().enumerate() {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let path = format!("kafka.topics[{i}]");
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(is_legal) {
            faults.at(&path).add(format!("`{topic}` is not a topic name"), "use letters, digits, `.`, `_` and `-`");
        } else if !seen.insert(topic) {
            faults.at(&path).add(format!("`{topic}` is named twice"), "name it once");
        }
    }
    if raw.kafka.group.is_empty() {
        faults.at("kafka.group").add("is empty", "name the consumer group");
    }
}

fn check_elasticsearch(raw: raw::Elasticsearch, faults: &mut Faults) -> Option<Elasticsearch> {
    if raw.hosts.is_empty() {
        faults.at("elasticsearch.hosts").add("has no entry", "name at least one address");
    }
    for (i, host) in raw.hosts.iter().enumerate() {
        let path = format!("elasticsearch.hosts[{i}]");
        match Url::parse(host) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                faults
                    .at(&path)
                    .add("carries credentials", "move them to `username` and `password` (or `password_file`)");
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.host().is_some() => {}
            _ => faults.at(&path).add(
                format!("`{}` is not an address", config::without_login(host)),
                "write http://host:9200 or https://host:9200",
            ),
        }
    }
    let num_ways = [raw.api_key.is_some(), raw.bearer_token.is_some(), raw.username.is_some()];
    if num_ways.into_iter().filter(|&way| way).count() > 1 {
        faults
            .at("elasticsearch")
            .add("has more than one way to log in", "keep one of `api_key`, `bearer_token`, `username`");
    }
    if raw.username.is_some() != raw.password.is_some() {
        faults.at("elasticsearch").add("has only one of `username` and `password`", "give both");
    }
    let files = [
        ("ca_file", &raw.ca_file),
        ("client_certificate_file", &raw.client_certificate_file),
        ("client_key_file", &raw.client_key_file),
    ];
    for (name, path) in files {
        if let Some(path) = path.as_ref().filter(|path| !path.is_file()) {
            let path = path.display();
            faults.at(&format!("elasticsearch.{name}")).add(format!("`{path}` is not a file"), "name a PEM file");
        }
    }
    if raw.client_certificate_file.is_some() != raw.client_key_file.is_some() {
        let what = "has only one of `client_certificate_file` and `client_key_file`";
        faults.at("elasticsearch").add(what, "give both");
    }
    let authentication = match (raw.api_key, raw.bearer_token, raw.username, raw.password) {
        (Some(key), ..) => Authentication::ApiKey(key),
        (_, Some(token), ..) => Authentication::Bearer(token),
        (_, _, Some(username), Some(password)) => Authentication::Basic { username, password },
        _ => Authentication::None,
    };
    Some(Elasticsearch {
        hosts: raw.hosts,
        authentication,
        ca_file: raw.ca_file,
        client_certificate: raw
            .client_certificate_file
            .zip(raw.client_key_file)
            .map(|(certificate, key)| ClientCertificate { certificate, key }),
        accept_any_certificate: raw.verify == Verify::None,
        gzip: raw.compression == Compression::Gzip,
        request_timeout: raw.request_timeout.duration(),
    })
}

fn check_bulk(raw: &raw::Bulk, memory: Memory, faults: &mut Faults) -> Option<Bulk> {
    let max_bytes = raw.max_bytes.bytes();
    if !(1 << 10..=Limits::MAX_BYTES as u64 / 2).contains(&max_bytes) {
        faults
            .at("bulk.max_bytes")
            .add("out of range", "give 1KiB to 512MiB; Elasticsearch takes 100MiB unless told otherwise");
    }
    for (path, value) in [("bulk.max_documents", raw.max_documents), ("bulk.max_in_flight", raw.max_in_flight)] {
        if value == 0 {
            faults.at(path).add("must not be 0", "give at least 1");
        }
    }
    // Small memory means small requests, so that several fit.
    let max_bytes = max_bytes.min(memory.unfinished / 4) as usize;
    let limits = Limits { max_bytes, max_documents: raw.max_documents as usize, max_delay: raw.max_delay.duration() };
    if raw.max_backoff.duration() < MIN_BACKOFF {
        faults.at("bulk.max_backoff").add("too short", "give at least 500ms");
    }
    Some(Bulk {
        limits,
        max_in_flight: raw.max_in_flight as usize,
        index_wait: raw.index_wait.duration(),
        // What is parked must leave room for what flows.
        parked_bytes: raw.parked_bytes.bytes().min(memory.unfinished / 2),
        max_backoff: raw.max_backoff.duration(),
    })
}

fn check_rule(number: usize, raw: raw::Rule, faults: &mut Faults) -> Option<Rule> {
    let path = |key: &str| format!("rules[{number}].{key}");
    let index = match Pattern::compile(&raw.index) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            faults
                .at(&path("index"))
                .add(error.to_string(), "write e.g. `applogs-{service.name}-{@timestamp:%Y.%m.%d}`");
            None
        }
    };
    if raw.unmapped == Unmapped::Fold && raw.fold_into.is_none() {
        faults.at(&path("unmapped")).add("`fold` needs a field", "name it with `fold_into`");
    }
    if raw.max_new_indices == 0 {
        faults.at(&path("max_new_indices")).add("must not be 0", "give at least 1");
    }
    let index = index?;
    for field in raw.default.keys() {
        if !index.paths().any(|path| path == field) {
            faults.at(&path("default")).add(format!("`{field}` is not a field of the index name"), "remove it");
        }
    }
    let mut protected: Vec<String> = index.paths().map(str::to_owned).collect();
    if !protected.iter().any(|path| path == "@timestamp") {
        protected.push("@timestamp".into());
    }
    let options = RuleOptions {
        unmapped: raw.unmapped,
        fold_into: raw.fold_into,
        on_conflict: raw.on_conflict,
        field_budget: raw.field_budget,
        protected,
    };
    Some(Rule {
        topics: raw.topics,
        index,
        defaults: raw.default,
        accept_time: AcceptTime { past: raw.accept_time.past.duration(), future: raw.accept_time.future.duration() },
        max_age: raw.max_age.duration(),
        max_new_indices: raw.max_new_indices,
        keeps_ids: raw.document_id == DocumentId::Record,
        options: Arc::new(options),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "kafka: { brokers: [\"k:9092\"], topics: [logs] }\nelasticsearch: { hosts: [\"http://es:9200\"] }\n";

    fn load_text(text: &str) -> Result<Config, Problem> {
        load("indexer.yaml", text, &[], &|_| None)
    }

    #[test]
    fn flags_alone_suffice() {
        let settings = [
            Setting::list("--brokers", "kafka.brokers", ["k:9092"]),
            Setting::list("--topic", "kafka.topics", ["logs"]),
            Setting::list("--elasticsearch", "elasticsearch.hosts", ["http://es:9200"]),
        ];
        let config = load("command line", "", &settings, &|_| None).unwrap();
        assert_eq!((config.kafka.group.as_str(), config.dead_letter_topic.as_str()), ("indexer", "logs.dlq"));
        assert_eq!(config.rule_for("logs"), Some(0));
    }

    #[test]
    fn all_faults_are_reported_together_with_their_places() {
        let text = "kafka: { brokers: [\"k:9092\"], topics: [logs, logs] }\nelasticsearch: { hosts: [es] }\nrules:\n  - index: \"App-{x}\"\n    unmapped: fold\nlimits: { memory: 1MiB }\nadmin: { listen: nowhere }\n";
        let Err(problem) = load_text(text) else { panic!("accepted") };
        let words = problem.to_string();
        for part in [
            "kafka.topics[1]",
            "elasticsearch.hosts[0]",
            "rules[0].index",
            "rules[0].unmapped",
            "limits.memory",
            "admin.listen",
            "indexer.yaml:4",
        ] {
            assert!(words.contains(part), "{part} missing in:\n{words}");
        }
    }

    #[test]
    fn documents_without_our_ids_are_warned_of() {
        let config = load_text(&format!("{MINIMAL}rules: [{{ topics: [logs] }}, {{ document_id: none }}]")).unwrap();
        let [warning] = &config.warnings()[..] else { panic!("{:?}", config.warnings()) };
        assert!(warning.starts_with("rules[1].document_id: none:"), "{warning}");
    }

    #[test]
    fn the_ledger_is_on_unless_it_is_switched_off_and_then_its_price_is_told() {
        let config = load_text(MINIMAL).unwrap();
        assert!(config.ledger && config.warnings().is_empty());
        let config = load_text(&format!("{MINIMAL}ledger: off")).unwrap();
        let [warning] = &config.warnings()[..] else { panic!("{:?}", config.warnings()) };
        assert!(!config.ledger && warning.starts_with("ledger: off:"), "{warning}");
    }

    #[test]
    fn expected_hosts_are_listed_once_each_and_need_the_ledger() {
        let config = load_text(&format!("{MINIMAL}expect: [{{ hosts: [a, b], interval: 10m }}, {{ hosts: [c] }}]"));
        let expected: Vec<_> = config.unwrap().expect.into_iter().map(|e| (e.host, e.interval)).collect();
        let ten_minutes = Some(Duration::from_secs(600));
        assert_eq!(expected, [("a".into(), ten_minutes), ("b".into(), ten_minutes), ("c".into(), None)]);
        let Err(problem) = load_text(&format!("{MINIMAL}ledger: off\nexpect: [{{ hosts: [a, a] }}, {{ hosts: [] }}]"))
        else {
            panic!("accepted")
        };
        for part in ["expect[0].hosts[1]", "expect[1].hosts", "needs the ledger"] {
            assert!(problem.to_string().contains(part), "{part} missing in:\n{problem}");
        }
    }

    #[test]
    fn the_fields_that_name_the_index_are_protected() {
        let config = load_text(&format!("{MINIMAL}rules: [{{ index: \"a-{{team}}\" }}]")).unwrap();
        assert_eq!(config.rules[0].options.protected, ["team", "@timestamp"]);
    }

    #[test]
    fn a_faulty_template_is_reported_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("logs.json"), "{").unwrap();
        let Err(problem) = load_text(&format!("{MINIMAL}templates: {{ dir: {} }}", dir.path().display())) else {
            panic!("accepted")
        };
        assert!(problem.to_string().contains("logs.json"), "{problem}");
    }

    #[test]
    fn a_fold_field_that_the_template_does_not_provide_is_a_fault_of_the_rule() {
        let dir = tempfile::tempdir().unwrap();
        let template =
            r#"{"index_patterns":["applogs-*"],"template":{"mappings":{"properties":{"attrs":{"type":"keyword"}}}}}"#;
        std::fs::write(dir.path().join("logs.json"), template).unwrap();
        let rule = "rules: [{ default: { service.name: x }, unmapped: fold, fold_into: attrs }]";
        let text = format!("{MINIMAL}templates: {{ dir: {} }}\n{rule}", dir.path().display());
        let Err(problem) = load_text(&text) else { panic!("accepted") };
        assert!(problem.to_string().contains("rules[0].fold_into"), "{problem}");
    }
}
