//! Brokers behind proxies, each lent to one test at a time.

use std::sync::Mutex;

use anyhow::Result;

use super::{Kafka, Options};
use crate::lock;
use crate::proxy::{Mode, Proxy};
use crate::rig::Rig;

static IDLE: Mutex<Vec<(Kafka, Proxy)>> = Mutex::new(Vec::new());

/// Idle brokers take time from the tests that run, about as much in a minute as a start takes.
const MOST_IDLE: usize = 2;

/// A broker that its clients reach through a proxy. The next test gets it once this one let it go.
pub struct Proxied(Option<(Kafka, Proxy)>);

impl Proxied {
    /// An idle one, or a new one.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn take() -> Result<Self> {
        let idle = lock(&IDLE).pop();
        idle.map_or_else(|| Kafka::start_behind_proxy(&Options::default()), Ok).map(|pair| Self(Some(pair)))
    }

    /// A new topic with a shipper behind the proxy, which is not started yet.
    ///
    /// # Errors
    ///
    /// If the topic cannot be made.
    pub fn rig(&self, name: &str, num_partitions: i32) -> Result<Rig> {
        Rig::on(self.kafka(), &self.proxy().addr().to_string(), name, num_partitions)
    }

    fn pair(&self) -> &(Kafka, Proxy) {
        self.0.as_ref().expect("it is there until the drop")
    }

    /// The broker, past the proxy.
    pub fn kafka(&self) -> &Kafka {
        &self.pair().0
    }

    /// What stands before it.
    pub fn proxy(&self) -> &Proxy {
        &self.pair().1
    }

    /// What the proxy does from now on.
    ///
    /// # Errors
    ///
    /// If the proxy cannot do that.
    pub fn set(&self, mode: Mode) -> Result<()> {
        self.proxy().set(mode)
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        let pair = self.0.take().filter(|(_, proxy)| !std::thread::panicking() && proxy.set(Mode::Pass).is_ok());
        let mut idle = lock(&IDLE);
        if idle.len() < MOST_IDLE {
            idle.extend(pair);
        }
    }
}
