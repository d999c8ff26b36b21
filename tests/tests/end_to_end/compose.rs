//! `docker-compose.yml`: held against the specification, and run without an engine.

mod schema;
mod servers;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::process::{Launch, Process};
use millrace_tests::proxy::Proxy;
use millrace_tests::servers::checkout;
use millrace_tests::{http, ports, scratch, wait};
use serde_json::Value;

use self::servers::Broker;
use crate::deploy::container::contain;
use crate::deploy::manifests::yaml;

const LIMIT: Duration = Duration::from_secs(60);

/// The user of our image.
const IMAGE_USER: i64 = 65_532;

/// A service of the file.
pub struct Service(Value);

impl Service {
    fn load(name: &str) -> Result<Self> {
        let file: Value = yaml(&checkout().join("docker-compose.yml"))?;
        let service = &file["services"][name];
        ensure!(service.is_object(), "no service {name}");
        Ok(Self(service.clone()))
    }

    /// A list of words.
    fn words(&self, pointer: &str) -> Result<Vec<String>> {
        let words = self.0.pointer(pointer).and_then(Value::as_array).with_context(|| format!("no {pointer}"))?;
        words.iter().map(|word| Ok(word.as_str().context("a word")?.to_owned())).collect()
    }

    /// Its variables.
    pub fn environments(&self) -> Result<Vec<(String, String)>> {
        let variables = self.0["environment"].as_object().into_iter().flatten();
        variables.map(|(name, value)| Ok((name.clone(), value.as_str().context(name.clone())?.to_owned()))).collect()
    }

    /// A variable.
    pub fn environment(&self, name: &str) -> Result<String> {
        Ok(self.0["environment"][name].as_str().with_context(|| format!("no {name}"))?.to_owned())
    }

    /// Source, target, and whether it is read only.
    fn volumes(&self) -> Result<Vec<(String, String, bool)>> {
        let volumes = self.0["volumes"].as_array().into_iter().flatten();
        let parts = volumes.map(|volume| {
            let mut parts = volume.as_str().context("a volume in short form")?.split(':').map(str::to_owned);
            let (source, target) = parts.next().zip(parts.next()).context("source and target")?;
            Ok((source, target, parts.next().as_deref() == Some("ro")))
        });
        parts.collect()
    }
}

#[test]
fn the_compose_file_is_one_by_the_specification_and_what_it_names_is_there() -> Result<()> {
    let schema: Value = serde_json::from_str(include_str!("compose/compose-spec.json"))?;
    let file: Value = yaml(&checkout().join("docker-compose.yml"))?;
    schema::check(&schema, &schema, &file, "")?;
    let services = file["services"].as_object().context("no services")?;
    for (name, service) in services {
        let service = Service(service.clone());
        let image = service.0["image"].as_str().with_context(|| format!("{name} has no image"))?;
        let host = image.split_once('/').map_or("", |(host, _)| host);
        ensure!(!host.contains(['.', ':']), "{name}: `{image}` names a registry");
        for needed in service.0["depends_on"].as_object().into_iter().flatten() {
            ensure!(services.contains_key(needed.0), "{name} needs `{}`, which is not there", needed.0);
            let wants_health = needed.1["condition"] == "service_healthy";
            ensure!(!wants_health || services[needed.0]["healthcheck"].is_object(), "`{}` is never healthy", needed.0);
        }
        for (source, _, _) in service.volumes()? {
            let is_there = match source.strip_prefix("./") {
                Some(path) => checkout().join(path).exists(),
                None => file["volumes"].get(&source).is_some(),
            };
            ensure!(is_there, "{name}: `{source}` is not there");
        }
    }
    // What is wrong is found: a key, a type, a value that a list does not have, and a part that must be there.
    let change = |pointer: &str, value: Value| -> Result<bool> {
        let mut file = file.clone();
        let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
        file.pointer_mut(parent).with_context(|| parent.to_owned())?[key] = value;
        Ok(schema::check(&schema, &schema, &file, "").is_err())
    };
    for (pointer, value) in [
        ("/services/shipper/comand", "x".into()),
        ("/services/shipper/read_only", 3.into()),
        ("/services/shipper/depends_on/app/condition", "service_ready".into()),
        ("/services/shipper/healthcheck/intervall", "5s".into()),
        ("/services/kafka/ports", "29092:29092".into()),
        ("/service", Value::Null),
    ] {
        ensure!(change(pointer, value)?, "{pointer} passes");
    }
    Ok(())
}

#[test]
fn prometheus_asks_the_services_where_they_listen() -> Result<()> {
    let config: Value = yaml(&checkout().join("docker/prometheus.yml"))?;
    let mut asked = Vec::new();
    for target in config["scrape_configs"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|job| job["static_configs"][0]["targets"].as_array())
        .flatten()
    {
        let (name, port) = target.as_str().and_then(|target| target.split_once(':')).context("host and port")?;
        // The port that is asked for health in the container.
        ensure!(Service::load(name)?.words("/healthcheck/test")?.contains(&port.to_owned()), "{target}");
        asked.push(name.to_owned());
    }
    assert_eq!(asked, ["shipper", "indexer-1", "indexer-2"]);
    Ok(())
}

/// The stack in a folder: named volumes in folders of it, one address of the loopback net for each name.
struct Stack {
    dir: PathBuf,
    broker: Broker,
    elasticsearch: &'static Elasticsearch,
    hosts: Vec<(&'static str, String)>,
    _proxies: [Proxy; 2],
}

impl Stack {
    fn start() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a container's mounts need root: run the tests with sudo, as for a container engine"
        );
        let dir = scratch::dir("compose")?;
        let broker = Broker::start(&Service::load("kafka")?, &dir)?;
        let elasticsearch = Elasticsearch::shared()?;
        let net = (process::id() % 200 + 20) as u8;
        let at = |host: u8, port: u16| SocketAddr::from(([127, net, 9, host], port));
        let target: SocketAddr = elasticsearch.url().trim_start_matches("http://").parse()?;
        let proxies = [
            Proxy::start_on(at(1, 9092), SocketAddr::from(([127, 0, 0, 1], broker.ports[0].1)))?,
            Proxy::start_on(at(2, 9200), target)?,
        ];
        let hosts = vec![("kafka", at(1, 0).ip().to_string()), ("elasticsearch", at(2, 0).ip().to_string())];
        Ok(Self { dir, broker, elasticsearch, hosts, _proxies: proxies })
    }

    /// Where a volume or a file of the checkout is. Ports in files of ours become `port`, as the machine is shared.
    fn source(&self, service: &str, source: &str, user: i64, port: Option<(u16, u16)>) -> Result<PathBuf> {
        let Some(path) = source.strip_prefix("./") else {
            let dir = self.dir.join(format!("volume-{source}"));
            if !dir.exists() {
                fs::create_dir(&dir)?;
                // An engine fills a new volume from the image, owner included.
                std::os::unix::fs::chown(&dir, Some(user as u32), Some(user as u32))?;
            }
            return Ok(dir);
        };
        let path = checkout().join(path);
        let Some((from, to)) = port.filter(|_| path.extension().is_some_and(|ending| ending == "yaml")) else {
            return Ok(path);
        };
        let copy = self.dir.join(format!("{service}-{}", path.file_name().context("a file")?.display()));
        fs::write(&copy, fs::read_to_string(&path)?.replace(&format!(":{from}\""), &format!(":{to}\"")))?;
        Ok(copy)
    }

    /// A service of our image, or of one that has a shell; `words` in place of its command, as for a health check.
    fn launch(&self, name: &str, words: Option<Vec<String>>, user: i64, port: Option<(u16, u16)>) -> Result<Launch> {
        let service = Service::load(name)?;
        let probe = checkout().join("docker/probe");
        let mut mounts = vec![format!("{}|/opt/probe|ro", probe.display())];
        for (source, target, is_read_only) in service.volumes()? {
            let source = self.source(name, &source, user, port)?;
            mounts.push(format!("{}|{target}|{}", source.display(), if is_read_only { "ro" } else { "rw" }));
        }
        let label = if words.is_some() { format!("{name}-health") } else { name.to_owned() };
        let mut launch = contain(&label, &self.dir, &self.hosts, (user, user), mounts)?;
        launch = launch.args(words.map_or_else(|| service.words("/command"), Ok)?);
        launch = launch.env("CONTAINER", service.0["hostname"].as_str().unwrap_or(name));
        Ok(service.environments()?.into_iter().fold(launch, |launch, (name, value)| launch.env(name, value)))
    }
}

/// One of our services, running.
struct Ours {
    name: &'static str,
    port: (u16, u16),
    process: Process,
}

impl Ours {
    fn start(stack: &Stack, name: &'static str, admin: u16) -> Result<Self> {
        let port = (admin, ports::free()?);
        let process = stack.launch(name, None, IMAGE_USER, Some(port))?.start()?;
        Ok(Self { name, port, process })
    }

    /// The health check of the file, once.
    fn is_healthy(&mut self, stack: &Stack) -> Result<bool> {
        self.process.ensure_running()?;
        let words = Service::load(self.name)?.words("/healthcheck/test")?;
        let (kind, words) = words.split_first().context("no health check")?;
        ensure!(kind == "CMD", "{kind}");
        let (from, to) = (self.port.0.to_string(), self.port.1.to_string());
        let words = words.iter().map(|word| if *word == from { to.clone() } else { word.clone() }).collect();
        Ok(stack.launch(self.name, Some(words), IMAGE_USER, Some(self.port))?.start()?.wait(LIMIT)? == 0)
    }

    /// Ends it as an engine does, within the time that the file gives, and not above the memory that it gives.
    fn stop(mut self) -> Result<()> {
        let service = Service::load(self.name)?;
        let number = |key: &str, unit: char| -> Result<u64> {
            let text = service.0[key].as_str().with_context(|| format!("no {key}"))?;
            Ok(text.trim_end_matches(unit).parse()?)
        };
        let peak = self.process.peak_rss_bytes().context("it runs")? >> 20;
        ensure!(peak < number("mem_limit", 'm')?, "{} took {peak} MiB", self.name);
        self.process.stop_within(Duration::from_secs(number("stop_grace_period", 's')?))
    }
}

#[test]
fn the_services_of_the_compose_file_bring_every_line_of_its_application() -> Result<()> {
    let stack = Stack::start()?;
    // In the order of `depends_on`: the broker is healthy, the topics are made.
    let health = Service::load("kafka")?.words("/healthcheck/test")?;
    let mut healthy = stack.broker.command("kafka-health", &health[1..])?.start()?;
    ensure!(healthy.wait(LIMIT)? == 0, "{}", healthy.log_tail());
    let setup = Service::load("kafka-setup")?;
    let mut setup = stack
        .broker
        .command("kafka-setup", &[setup.words("/entrypoint")?, setup.words("/command")?].concat())?
        .start()?;
    ensure!(setup.wait(LIMIT)? == 0, "{}", setup.log_tail());
    let partitions = |topic: &str| -> Result<usize> { Ok(stack.broker.client.end_offsets(topic)?.len()) };
    assert_eq!((partitions("logs")?, partitions("logs.dlq")?), (6, 3));
    check_elasticsearch(&stack)?;

    let mut app = stack.launch("app", None, 0, None)?.start()?;
    let mut ours = vec![
        Ours::start(&stack, "indexer-1", 9641)?,
        Ours::start(&stack, "indexer-2", 9641)?,
        Ours::start(&stack, "shipper", 9640)?,
    ];
    for service in &mut ours {
        let healthy =
            wait::until_true(&format!("{} to be healthy", service.name), LIMIT, || service.is_healthy(&stack));
        healthy.with_context(|| service.process.log_tail())?;
    }
    let log = stack.dir.join("volume-logs/shop.log");
    let num_written = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    wait::until_true("100 lines", LIMIT, || Ok(num_written() >= 100))?;
    app.terminate(LIMIT)?;
    let num_written = num_written();
    let mut num_found = 0;
    wait::until_true("every line in the index", LIMIT, || {
        num_found = num_documents(&stack)?;
        Ok(num_found >= num_written)
    })
    .with_context(|| format!("{num_found} of {num_written}"))?;
    assert_eq!(num_found, num_written);
    ours.into_iter().rev().try_for_each(Ours::stop)
}

/// The documents of the file's host. Other tests have such an index, too.
fn num_documents(stack: &Stack) -> Result<usize> {
    // Not there yet.
    if stack.elasticsearch.count("applogs-shop-*")? == 0 {
        return Ok(0);
    }
    let documents = stack.elasticsearch.all_documents("applogs-shop-*")?;
    Ok(documents.iter().filter(|document| document.source["host"]["name"] == "web-1").count())
}

/// A real node runs with these settings, and answers the health check.
fn check_elasticsearch(stack: &Stack) -> Result<()> {
    let service = Service::load("elasticsearch")?;
    let reply = stack.elasticsearch.call("GET", "/_nodes/settings?flat_settings=true", None)?;
    let node = reply["nodes"].as_object().and_then(|nodes| nodes.values().next()).context("no node")?;
    let set: BTreeMap<String, String> = service.environments()?.into_iter().collect();
    for (name, value) in set.iter().filter(|(name, _)| name.contains('.')) {
        assert_eq!(node["settings"][name].as_str(), Some(value.as_str()), "{name}");
    }
    let test = service.words("/healthcheck/test")?;
    let url = test[1].split('\'').nth(1).context("a quoted address")?;
    let reply = http::get(&url.replace("http://localhost:9200", stack.elasticsearch.url()))?;
    ensure!(reply.status == 200, "{url}: {}", reply.body);
    Ok(())
}
