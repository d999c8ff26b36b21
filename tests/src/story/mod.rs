//! `make demo-monitoring`: ten hosts; a shipper is killed, a tail stands still, a file is skipped, and Elasticsearch answers
//! no more. Each is named by `/pipeline`, the page, an alert of a real Prometheus and, for bytes, the audit; and all turns
//! green again.

mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::cluster::{Cluster, Skipped, pictures};
use crate::browser::Browser;
use crate::hanging_files::Reads;
use crate::proxy::Mode;
use crate::{http, wait};

const KILLED: usize = 2;
const STALLED: usize = 4;
const SKIPPING: usize = 6;

/// How soon an alarm must be there, and how soon it must be gone.
const NAMED_WITHIN: Duration = Duration::from_secs(75);
const GREEN_WITHIN: Duration = Duration::from_secs(90);

/// A fault, and by what each observer tells it.
struct Fault {
    what: &'static str,
    /// Words of one line of trouble of `/pipeline`.
    words: Vec<String>,
    state: &'static str,
    alert: &'static str,
    named: [Option<Duration>; 3],
}

impl Fault {
    fn new(what: &'static str, state: &'static str, alert: &'static str, words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self { what, words, state, alert, named: [None; 3] }
    }
}

/// What looks at the pipeline.
struct Observers<'a> {
    cluster: &'a Cluster,
    browser: Browser,
}

impl Observers<'_> {
    fn pipeline(&self) -> Result<(u16, Value)> {
        let reply = http::get(&format!("http://{}/pipeline", self.cluster.admins[0]))?;
        Ok((reply.status, serde_json::from_str(&reply.body)?))
    }

    /// Notes who names which of the faults by now.
    fn look(&self, faults: &mut [Fault], begun: Instant) -> Result<bool> {
        let (status, pipeline) = self.pipeline()?;
        let troubles = pipeline["sources"].as_array().cloned().unwrap_or_default();
        let page = self.browser.text("body")?;
        for fault in faults.iter_mut() {
            let is_told = |text: &str| text.contains(fault.state) && fault.words.iter().all(|word| text.contains(word));
            let by_pipeline = status == 503 && troubles.iter().any(|trouble| is_told(&trouble.to_string()));
            let by_page = page.contains("ERROR") && page.lines().any(is_told);
            let named = [by_pipeline, by_page, self.cluster.prometheus.is_firing(fault.alert)?];
            for (at, named) in fault.named.iter_mut().zip(named) {
                if named && at.is_none() {
                    *at = Some(begun.elapsed());
                }
            }
        }
        Ok(faults.iter().all(|fault| fault.named.iter().all(Option::is_some)))
    }

    /// Waits until every fault is named by all, and says when.
    fn watch(&self, faults: &mut [Fault], begun: Instant) -> Result<()> {
        let mut shown = 0;
        let all_named = wait::until_true("everyone names every fault", NAMED_WITHIN, || {
            let is_done = self.look(faults, begun)?;
            let num = faults.iter().flat_map(|fault| fault.named).flatten().count();
            if num > shown {
                shown = num;
                println!("  {:>3} s  {num} of {} alarms", begun.elapsed().as_secs(), 3 * faults.len());
            }
            std::thread::sleep(Duration::from_millis(300));
            Ok(is_done)
        });
        let seconds = |at: Option<Duration>| at.map_or("never".to_owned(), |at| format!("{:.1} s", at.as_secs_f64()));
        println!("  {:<44} {:>10} {:>10} {:>10}", "fault", "/pipeline", "page", "alert");
        for fault in faults.iter() {
            let [pipeline, page, alert] = fault.named.map(seconds);
            println!("  {:<44} {pipeline:>10} {page:>10} {alert:>10}  {} {}", fault.what, fault.state, fault.alert);
        }
        all_named
    }

    /// Waits until all is well by everyone. Returns how long it took.
    fn wait_green(&self, alerts: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        let mut last = String::new();
        let mut is_green = || {
            let (status, pipeline) = self.pipeline()?;
            let page = self.browser.text("#state")?;
            last = format!("{status} {pipeline}, the page says {page}");
            let mut are_quiet = true;
            for alert in alerts {
                are_quiet &= !self.cluster.prometheus.is_firing(alert)?;
            }
            Ok(status == 200 && page.ends_with("OKAY") && are_quiet)
        };
        let waited = wait::until_true("all is green", GREEN_WITHIN, &mut is_green);
        waited.with_context(|| last.clone())?;
        Ok(begun.elapsed())
    }

    fn picture(&self, name: &str) -> Result<()> {
        let path = pictures()?.join(name);
        self.browser.screenshot(&path)?;
        println!("  picture  .run/monitoring/{name}");
        Ok(())
    }
}

/// Tells the story.
///
/// # Errors
///
/// If something does not run, or an alarm does not come or go.
pub fn run() -> Result<()> {
    println!("Starting Kafka, Elasticsearch, ten shippers, two indexers and Prometheus ...");
    let mut cluster = Cluster::start(STALLED)?;
    let browser = Browser::open(1280, 1500, false)?;
    browser.go(&format!("http://{}/", cluster.admins[0]))?;
    let names: Vec<String> = cluster.hosts.iter().map(|host| host.name.clone()).collect();
    let observers = Observers { cluster: &cluster, browser };
    wait::until_true("all hosts are known", GREEN_WITHIN, || {
        let page = observers.browser.text("#hosts tbody")?;
        Ok(names.iter().all(|name| page.contains(name.as_str())))
    })?;
    observers.wait_green(&[])?;
    println!("All green: {} hosts, {}", names.len(), observers.pipeline()?.1);
    observers.picture("1-green.png")?;
    let Observers { browser, .. } = observers;

    println!("\nA shipper is killed, a tail stands still, a file is skipped.");
    cluster.hosts[KILLED].kill()?;
    cluster.hanging.set(Reads::Hang)?;
    let begun = Instant::now();
    let skipped = Skipped::tell(&cluster, &cluster.hosts[SKIPPING])?;
    let mut faults = [
        Fault::new("the shipper of host-3 is killed", "SILENT", "SourceSilent", &["host-3"]),
        Fault::new("a read of host-5's app.log hangs", "STALLED", "TailStalled", &["host-5"]),
        Fault::new("host-7 says skipped.log is sent, and it is not", "GAP", "AuditHoles", &["host-7"]),
    ];
    let observers = Observers { cluster: &cluster, browser };
    observers.watch(&mut faults, begun)?;
    observers.picture("2-three-faults.png")?;
    let (code, audit) = cluster.indexer_command(&["audit", "--host", "host-7"])?;
    let hole = audit.lines().find(|line| line.contains("HOLE") && line.contains(&skipped.path));
    println!("  audit    exit {code}: {}", hole.unwrap_or("no hole").trim());
    ensure!(code == 65 && hole.is_some(), "the audit does not name the file:\n{audit}");
    let Observers { browser, .. } = observers;

    println!("\nThe shipper starts again, the read is answered, the line is sent.");
    cluster.hosts[KILLED].start_again()?;
    cluster.hanging.set(Reads::Answered)?;
    skipped.send()?;
    let observers = Observers { cluster: &cluster, browser };
    let green = observers.wait_green(&["SourceSilent", "TailStalled", "AuditHoles"])?;
    println!("  all green after {:.1} s", green.as_secs_f64());
    let (code, audit) = cluster.indexer_command(&["audit"])?;
    println!("  audit    exit {code}: {}", audit.lines().last().unwrap_or_default());
    if code != 0 {
        bail!("the audit finds holes:\n{audit}");
    }

    println!("\nElasticsearch answers no more.");
    let begun = Instant::now();
    cluster.proxy.set(Mode::BlackHole)?;
    let mut faults = [Fault::new("Elasticsearch hangs", "BEHIND", "LagAge", &["host-1"])];
    observers.watch(&mut faults, begun)?;
    observers.picture("3-elasticsearch-hangs.png")?;
    println!("\nElasticsearch answers again.");
    cluster.proxy.set(Mode::Pass)?;
    let green = observers.wait_green(&["LagAge"])?;
    println!("  all green after {:.1} s", green.as_secs_f64());
    observers.picture("4-green-again.png")?;
    drop(observers);
    cluster.stop()?;
    println!("\nEvery fault was named by everyone, and nothing is wrong at the end.");
    Ok(())
}
