//! `make up` and `make down`: Kafka and Elasticsearch for a developer's machine.
//!
//! With a Docker engine that answers, the compose file; without one, both as Java processes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use millrace_tests::servers;
use millrace_tests::stack::{Stack, stop_all};

const USAGE: &str = "usage: stack up | down

Environment:
  KAFKA_PORT, ELASTICSEARCH_PORT   ports of the Java processes (9092, 9200)
  MILLRACE_STACK=docker|java       which of the two ways (docker if an engine answers)
  MILLRACE_RUN                     folder of data, logs and process ids (.run/stack)";

/// The topics that the examples of the README use.
const TOPICS: [(&str, i32); 2] = [("logs", 4), ("logs.dlq", 1)];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["up"] => up(),
        ["down"] => down(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up() -> Result<()> {
    if let Some(compose) = compose_to_use()? {
        return run_compose(compose, &["up", "-d", "--wait"]);
    }
    let stack = stack()?;
    println!("no Docker engine answers: starting Kafka and Elasticsearch as Java processes ...");
    stack.up()?;
    let kafka = stack.kafka();
    for (topic, partitions) in TOPICS {
        if kafka.partitions(topic)?.is_empty() {
            kafka.create_topic(topic, partitions, &[])?;
        }
    }
    println!(
        "Kafka          {}  (topics logs, logs.dlq)\nElasticsearch  {}\nlogs and data  {}\nstop with      make down",
        kafka.bootstrap(),
        stack.elasticsearch().url(),
        stack.dir.display()
    );
    Ok(())
}

fn down() -> Result<()> {
    let mut stopped = stop_all(&stack()?.dir)?;
    // What `KEEP=1 make demo` left.
    stopped.extend(stop_all(&servers::checkout().join(".run/demo"))?);
    if !stopped.is_empty() {
        println!("stopped {}", stopped.join(", "));
        return Ok(());
    }
    match compose_to_use()? {
        Some(compose) => run_compose(compose, &["down"]),
        None => {
            println!("nothing runs");
            Ok(())
        }
    }
}

fn stack() -> Result<Stack> {
    let port = |variable: &str, default: u16| match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}=`{text}` is no port")),
        Err(_) => Ok(default),
    };
    let dir = std::env::var_os("MILLRACE_RUN").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| servers::checkout().join(".run/stack"));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(Stack {
        dir: fs::canonicalize(dir)?,
        kafka_port: port("KAFKA_PORT", 9092)?,
        elasticsearch_port: port("ELASTICSEARCH_PORT", 9200)?,
    })
}

type Compose = &'static [&'static str];

/// The compose command, if an engine answers or is asked for by name.
fn compose_to_use() -> Result<Option<Compose>> {
    let way = std::env::var("MILLRACE_STACK").unwrap_or_default();
    match way.as_str() {
        "java" => return Ok(None),
        "" if !answers(&["docker", "info"]) => return Ok(None),
        "" | "docker" => {}
        other => bail!("MILLRACE_STACK=`{other}`: known are docker and java"),
    }
    let ways: [Compose; 2] = [&["docker", "compose"], &["docker-compose"]];
    let found = ways.into_iter().find(|way| answers(&[way, &["version"][..]].concat()));
    ensure!(found.is_some() || way.is_empty(), "neither `docker compose` nor `docker-compose` is installed");
    Ok(found)
}

fn answers(command: &[&str]) -> bool {
    Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn run_compose(compose: Compose, args: &[&str]) -> Result<()> {
    let status = Command::new(compose[0])
        .args(&compose[1..])
        .args(args)
        .current_dir(servers::checkout())
        .status()
        .context("cannot run docker compose")?;
    ensure!(status.success(), "`{} {}` failed ({status})", compose.join(" "), args.join(" "));
    Ok(())
}
