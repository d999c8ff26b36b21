//! The manifests of `k8s/`: typed, held against rules, and run.

pub mod container;
pub mod manifests;
mod rules;

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::kafka::Kafka;
use millrace_tests::proxy::Proxy;
use millrace_tests::{ports, scratch, wait};
use serde_json::Value;

use self::container::{Surroundings, host_path, launch};
use self::manifests::Workload;

const LIMIT: Duration = Duration::from_secs(60);

/// Servers under the names and ports that the manifests use.
struct Cluster {
    dir: PathBuf,
    kafka: &'static Kafka,
    elasticsearch: &'static Elasticsearch,
    hosts: Vec<(&'static str, String)>,
    _proxies: [Proxy; 2],
}

impl Cluster {
    fn new(name: &str, number: u8) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a container's mounts need root: run the tests with sudo, as for a container engine"
        );
        let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
        static TOPICS: OnceLock<Result<(), String>> = OnceLock::new();
        let create = |topic| kafka.create_topic(topic, 6, &[]).map_err(|fault| format!("{fault:#}"));
        let created = TOPICS.get_or_init(|| ["logs", "logs.dlq"].into_iter().try_for_each(create));
        created.clone().map_err(anyhow::Error::msg)?;
        // An address of the loopback net for each name, so that the ports can be those of the manifests.
        let net = process::id() % 200 + 20;
        let at = |host: u8, port: u16| SocketAddr::from(([127, net as u8, number, host], port));
        let target = |url: &str| -> Result<SocketAddr> { Ok(url.trim_start_matches("http://").parse()?) };
        let proxies = [
            Proxy::start_on(at(1, 9092), target(kafka.bootstrap())?)?,
            Proxy::start_on(at(2, 9200), target(elasticsearch.url())?)?,
        ];
        let hosts = vec![("kafka", at(1, 0).ip().to_string()), ("elasticsearch", at(2, 0).ip().to_string())];
        Ok(Self { dir: scratch::dir(name)?, kafka, elasticsearch, hosts, _proxies: proxies })
    }

    fn surroundings(&self) -> Result<Surroundings> {
        let ports = vec![(9640, ports::free()?), (9641, ports::free()?)];
        Ok(Surroundings { dir: self.dir.clone(), hosts: self.hosts.clone(), ports })
    }

    /// A document of the index that has these values.
    fn document(&self, index: &str, wanted: &[(&str, &str)]) -> Result<Option<Value>> {
        if self.elasticsearch.count(index)? == 0 {
            return Ok(None);
        }
        let has = |document: &Value, (path, value): &(&str, &str)| {
            document.pointer(path).and_then(Value::as_str) == Some(value)
        };
        let documents = self.elasticsearch.all_documents(index)?;
        let sources = documents.into_iter().map(|document| document.source);
        Ok(sources.into_iter().find(|source| wanted.iter().all(|pair| has(source, pair))))
    }
}

#[test]
fn the_sidecar_and_the_indexer_run_as_their_manifests_say() -> Result<()> {
    let cluster = Cluster::new("k8s-sidecar", 1)?;
    let (sidecar, indexer) = (Workload::load("sidecar")?, Workload::load("indexer")?);
    let pod = sidecar.template.spec.as_ref().context("no pod")?;
    let surroundings = cluster.surroundings()?;
    let shipper = pod.init_containers.iter().flatten().next().context("no sidecar")?;
    let mut shipper = launch(&sidecar, shipper, &surroundings)?.start()?;
    let mut app = launch(&sidecar, &pod.containers[0], &surroundings)?.start()?;
    let container = &indexer.template.spec.as_ref().context("no pod")?.containers[0];
    let mut indexer = launch(&indexer, container, &surroundings)?.start()?;
    let wanted = [
        ("/service/name", "shop"),
        ("/host/name", "pod-1"),
        ("/kubernetes/pod/name", "pod-1"),
        ("/kubernetes/namespace", "logging"),
        ("/kubernetes/node/name", "node-1"),
    ];
    let found = wait::until("a document of the application", LIMIT, || {
        for process in [&mut shipper, &mut app, &mut indexer] {
            process.ensure_running()?;
        }
        cluster.document("applogs-shop-*", &wanted)
    });
    found.with_context(|| format!("{}\n{}", shipper.log_tail(), indexer.log_tail()))?;
    // In the order in which Kubernetes stops them: the application first.
    app.terminate(LIMIT)?;
    ensure!(shipper.terminate(LIMIT)? == 0, "{}", shipper.log_tail());
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    Ok(())
}

#[test]
fn the_daemon_set_ships_what_containers_print() -> Result<()> {
    let cluster = Cluster::new("k8s-node", 2)?;
    let node = Workload::load("node")?;
    let surroundings = cluster.surroundings()?;
    let marker = format!("printed-{}", process::id());
    let line = format!("2026-11-25T10:00:00.123456789Z stdout F {{\"message\":\"{marker}\"}}\n");
    let pods = host_path(&cluster.dir, "/var/log/pods/shop_web-1_0f2c/app");
    fs::create_dir_all(&pods)?;
    fs::write(pods.join("0.log"), &line)?;
    // For root alone, as the kubelet writes them.
    fs::set_permissions(pods.join("0.log"), std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
    let links = host_path(&cluster.dir, "/var/log/containers");
    fs::create_dir_all(&links)?;
    let id = "c".repeat(64);
    for pod in ["web-1_shop_app", "indexer-5c_logging_indexer"] {
        symlink("/var/log/pods/shop_web-1_0f2c/app/0.log", links.join(format!("{pod}-{id}.log")))?;
    }
    let container = &node.template.spec.as_ref().context("no pod")?.containers[0];
    let mut shipper = launch(&node, container, &surroundings)?.start()?;
    let record = wait::until("the record", LIMIT, || {
        shipper.ensure_running()?;
        let records = cluster.kafka.read_topic("logs")?;
        Ok(records.into_iter().find(|record| String::from_utf8_lossy(&record.value).contains(&marker)))
    });
    let record = record.with_context(|| shipper.log_tail())?;
    let value: Value = serde_json::from_slice(&record.value)?;
    for (path, expected) in [
        ("/kubernetes/namespace", "shop"),
        ("/kubernetes/pod/name", "web-1"),
        ("/kubernetes/container/name", "app"),
        ("/kubernetes/node/name", "node-1"),
        ("/host/name", "node-1"),
    ] {
        assert_eq!(value.pointer(path).and_then(Value::as_str), Some(expected), "{path}: {value}");
    }
    ensure!(shipper.terminate(LIMIT)? == 0, "{}", shipper.log_tail());
    Ok(())
}
