//! Files to Kafka: every line once per record id, whatever happens to files, process and broker.

use std::time::Duration;

use anyhow::Result;
use millrace_tests::kafka::Kafka;
use millrace_tests::oracle;
use millrace_tests::process::Launch;
use millrace_tests::scratch;
use millrace_tests::wait;
use millrace_tests::writer::{Format, LogWriter, Traffic, Written};

const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    kafka: &'static Kafka,
    topic: String,
    dir: std::path::PathBuf,
    written: Written,
}

impl Rig {
    fn new(name: &str, num_partitions: i32) -> Result<Self> {
        let kafka = Kafka::shared()?;
        kafka.create_topic(name, num_partitions, &[])?;
        let dir = scratch::dir(name)?;
        std::fs::create_dir(dir.join("logs"))?;
        Ok(Self { kafka, topic: name.to_owned(), dir, written: Written::new(name) })
    }

    fn writer(&self, file: &str, format: Format) -> Result<LogWriter> {
        LogWriter::create(&self.written, &self.dir.join("logs").join(file), format)
    }

    fn shipper(&self) -> Result<Launch> {
        Ok(Launch::shipper("shipper", &self.dir)?
            .args(["run", "--brokers", self.kafka.bootstrap(), "--topic", &self.topic])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.dir.join("state"))
            .arg(format!("{}/logs/*.log*", self.dir.display())))
    }

    fn verdict(&self) -> Result<oracle::Verdict> {
        Ok(oracle::judge(&self.written, &oracle::in_topic(&self.kafka.read_topic(&self.topic)?)?))
    }

    fn wait_until_whole(&self) -> Result<()> {
        let whole = wait::until_true("every line is in the topic", LIMIT, || Ok(self.verdict()?.check().is_ok()));
        if whole.is_err() { self.verdict()?.check() } else { Ok(()) }
    }
}

#[test]
fn text_and_json_lines_arrive_once_and_a_stop_is_clean() -> Result<()> {
    let rig = Rig::new("text-and-json", 3)?;
    let mut text = rig.writer("a.log", Format::Text)?;
    let mut json = rig.writer("b.log", Format::Json)?;
    text.write(1000)?;
    json.write(1000)?;
    let mut shipper = rig.shipper()?.args(["--format", "json"]).start()?;
    rig.wait_until_whole()?;
    text.write(10)?;
    json.write(10)?;
    assert_eq!(shipper.terminate(Duration::from_secs(30))?, 0);
    rig.verdict()?.check()?;
    let records = rig.kafka.read_topic(&rig.topic)?.len();
    assert_eq!(records, 2020, "no record is sent twice");
    let mut again = rig.shipper()?.start()?;
    wait::until_true("the files are found again", LIMIT, || Ok(again.output().matches("tailing").count() == 4))?;
    assert_eq!(again.terminate(Duration::from_secs(30))?, 0);
    assert_eq!(rig.kafka.read_topic(&rig.topic)?.len(), records, "a restart sends nothing again");
    Ok(())
}

#[test]
fn killed_twenty_times_while_writing_and_rotating() -> Result<()> {
    let rig = Rig::new("killed-shipper", 4)?;
    let launch = rig.shipper()?.args(["--format", "json"]);
    let writers = vec![rig.writer("a.log", Format::Json)?, rig.writer("b.log", Format::Text)?];
    let traffic = Traffic::start(writers, 2000, 1500);
    for round in 0..20 {
        let mut shipper = launch.start()?;
        std::thread::sleep(Duration::from_millis(300 + 37 * round));
        shipper.kill9()?;
    }
    let mut shipper = launch.start()?;
    std::thread::sleep(Duration::from_secs(1));
    traffic.stop()?;
    rig.wait_until_whole()?;
    assert_eq!(shipper.terminate(Duration::from_secs(30))?, 0);
    Ok(())
}
