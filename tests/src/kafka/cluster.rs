//! Several brokers, each behind a proxy of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::server::{Entrance, Kafka, Member, Options};
use crate::proxy::{Mode, Proxy};
use crate::{ports, scratch, wait};

/// A cluster whose brokers are all controllers too. Broker `n`, counted from 1, stands at `n - 1`.
pub struct Cluster {
    pub brokers: Vec<Kafka>,
    pub proxies: Vec<Proxy>,
    dir: PathBuf,
}

impl Cluster {
    /// Starts it and waits until all brokers know each other.
    ///
    /// # Errors
    ///
    /// If one does not start.
    pub fn start(num_brokers: usize, options: &Options) -> Result<Self> {
        let controllers = (0..num_brokers).map(|_| ports::free()).collect::<Result<Vec<u16>>>()?;
        let mut proxies = Vec::new();
        let mut members = Vec::new();
        for node_id in 1..=num_brokers {
            let listens = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
            let proxy = Proxy::start(listens)?;
            members.push((
                Member { node_id, controllers: controllers.clone() },
                options.with_entrance(Entrance::plain(listens, proxy.addr())),
            ));
            proxies.push(proxy);
        }
        // None answers before most of them run.
        let brokers = std::thread::scope(|scope| {
            let starts: Vec<_> =
                members.iter().map(|(member, options)| scope.spawn(|| Kafka::start_member(options, member))).collect();
            let ended = starts.into_iter().map(|start| start.join().ok().context("a start panicked")?);
            ended.collect::<Result<Vec<Kafka>>>()
        })?;
        wait::until_true("the brokers to know each other", Duration::from_secs(60), || {
            Ok(brokers[0].num_brokers()? == num_brokers)
        })?;
        Ok(Self { brokers, proxies, dir: scratch::dir("cluster")? })
    }

    /// The proxies' addresses, for `--brokers`.
    pub fn bootstrap(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| proxy.addr().to_string()).collect()
    }

    /// Lets the network do the same to all brokers.
    ///
    /// # Errors
    ///
    /// As [`Proxy::set`].
    pub fn set(&self, mode: Mode) -> Result<()> {
        self.proxies.iter().try_for_each(|proxy| proxy.set(mode))
    }

    /// Moves the leadership of the partitions of topics: `replicas` of each partition, the leader first. The same
    /// replicas in another order move no data.
    ///
    /// # Errors
    ///
    /// If the brokers refuse.
    pub fn elect(&self, topics: &[&str], replicas: &[Vec<i32>]) -> Result<()> {
        let of_topic = |topic: &&str| -> Vec<Value> {
            let partitions = replicas.iter().enumerate();
            partitions.map(|(at, replicas)| json!({"topic": topic, "partition": at, "replicas": replicas})).collect()
        };
        let partitions: Vec<Value> = topics.iter().flat_map(of_topic).collect();
        let plan = self.dir.join("plan.json");
        std::fs::write(&plan, json!({"version": 1, "partitions": partitions}).to_string())?;
        let class = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
        self.brokers[0].tool(class, &["--execute", "--reassignment-json-file", &plan.to_string_lossy()])?;
        Ok(())
    }
}
