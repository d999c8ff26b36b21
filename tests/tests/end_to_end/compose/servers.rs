//! The third-party services of the compose file, as far as they can be run without their images: a real broker with the
//! properties that its image makes of the environment, and the tools that scripts of the image would call.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::kafka::{Java, KafkaClient};
use millrace_tests::process::{Launch, Process};
use millrace_tests::{ports, wait};

use super::Service;

const LIMIT: Duration = Duration::from_secs(90);

/// The broker of the service `kafka`.
pub struct Broker {
    pub client: KafkaClient,
    /// The port of each of the file's ports.
    pub ports: Vec<(u16, u16)>,
    dir: PathBuf,
    _process: Process,
}

impl Broker {
    pub fn start(service: &Service, dir: &Path) -> Result<Self> {
        let ports: Vec<(u16, u16)> =
            [9092, 9093, 29092].into_iter().map(|port| Ok((port, ports::free()?))).collect::<Result<_>>()?;
        let java = Java::find()?;
        let properties = dir.join("server.properties");
        fs::write(&properties, translate(service, dir, &ports)?)?;
        let format = ["kafka.tools.StorageTool", "format", "-t", "5L6g3nShT-eMCtK--X86sw", "-c"];
        let mut formatted = launch(&java, "format", dir).args(format).arg(&properties).start()?;
        ensure!(formatted.wait(LIMIT)? == 0, "{}", formatted.log_tail());
        let heap = service.environment("KAFKA_HEAP_OPTS")?;
        let kafka = launch(&java, "kafka", dir).args(heap.split(' '));
        let mut process = kafka.args(["-XX:TieredStopAtLevel=1", "kafka.Kafka"]).arg(&properties).start()?;
        let client = KafkaClient::new(&format!("localhost:{}", ports[2].1));
        let ready = wait::until_true("the broker of the compose file", LIMIT, || {
            process.ensure_running()?;
            client.is_ready()
        });
        ready.with_context(|| process.log_tail())?;
        Ok(Self { client, ports, dir: dir.to_owned(), _process: process })
    }

    /// A command of a container of the same image, with scripts of the image in place and this broker under the address that
    /// is published to the host.
    pub fn command(&self, name: &str, words: &[String]) -> Result<Launch> {
        let java = Java::find()?;
        for (script, class) in
            [("kafka-topics", "TopicCommand"), ("kafka-broker-api-versions", "BrokerApiVersionsCommand")]
        {
            let path = self.dir.join(format!("{script}.sh"));
            let class = format!("org.apache.kafka.tools.{class}");
            let call =
                format!("'{}' -XX:TieredStopAtLevel=1 -cp '{}' {class}", java.program.display(), java.class_path);
            fs::write(&path, format!("#!/bin/sh\nexec {call} \"$@\"\n"))?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let published = format!("localhost:{}", self.ports[2].1);
        let adapt = |word: &String| {
            // `$$` stands for `$`.
            let word = word.replace("$$", "$").replace("/opt/kafka/bin/", &format!("{}/", self.dir.display()));
            word.replace("kafka:9092", &published).replace("localhost:9092", &published)
        };
        let (program, args) = words.split_first().context("no command")?;
        let launch = Launch::program(name, adapt(program), &self.dir.join(format!("{name}.log")));
        Ok(launch.args(args.iter().map(adapt)))
    }
}

fn launch(java: &Java, name: &str, dir: &Path) -> Launch {
    let log = dir.join(format!("{name}.log"));
    Launch::program(name, &java.program, &log).dir(dir).args(["-cp", &java.class_path])
}

/// `KAFKA_A_B` is the property `a.b`, as the image's start script has it; ports and folders are those of the test.
fn translate(service: &Service, dir: &Path, ports: &[(u16, u16)]) -> Result<String> {
    let mut text = String::new();
    for (name, value) in service.environments()? {
        let Some(name) = name.strip_prefix("KAFKA_").filter(|name| *name != "HEAP_OPTS") else { continue };
        ensure!(!name.contains("__"), "{name}: a property with a dash or an underscore is not expected");
        let mut value = value.replace("1@kafka:", "1@localhost:");
        // Advertised to containers, which reach it by a proxy that has the port of the file.
        let is_advertised = |place: &str| place == "PLAINTEXT://kafka:9092";
        let places = value.split(',').map(|place| {
            let moved = ports.iter().find_map(|(port, free)| Some((place.strip_suffix(&format!(":{port}"))?, free)));
            moved.filter(|_| !is_advertised(place)).map_or(place.to_owned(), |(host, free)| format!("{host}:{free}"))
        });
        value = places.collect::<Vec<_>>().join(",");
        if name == "LOG_DIRS" {
            value = dir.join("data").display().to_string();
        }
        text += &format!("{}={value}\n", name.to_lowercase().replace('_', "."));
    }
    Ok(text)
}
