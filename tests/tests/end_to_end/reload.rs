//! Another configuration without a restart, in both programs. The count of refused ones is
//! `<program>_config_reloads_total{result="refused"}`, which the case O14 calls `config_reload_failed_total`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::certificates::Authority;
use millrace_tests::fake_elasticsearch::{Answer, FakeElasticsearch};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::kafka::{self, Entrance, Kafka, KafkaClient, Proxied};
use millrace_tests::process::Process;
use millrace_tests::proxy::{Mode, Proxy};
use millrace_tests::rig::Rig;
use millrace_tests::{http, ports, scratch, wait};
use serde_json::json;

use crate::reload_rig::{DONE, KEPT, REFUSED, RELOADED, check_o14, num_threads, reload, wait_reload, wait_threads};

fn indexer(rig: &mut IndexerRig) -> Result<&mut Process> {
    rig.indexer.as_mut().context("it was started")
}

#[test]
fn o13_a_reload_is_prompt_while_elasticsearch_refuses_or_hangs() -> Result<()> {
    for (name, is_hung) in [("o13-refuses", false), ("o13-hangs", true)] {
        let mut rig = IndexerRig::new(name, 2, "")?;
        let good = FakeElasticsearch::start()?;
        rig.fake.script(move |_| match is_hung {
            true => Answer::After(Duration::from_secs(60), Box::new(Answer::refuse(503))),
            false => Answer::refuse(503),
        });
        rig.produce(0..1_000, "a")?;
        rig.start()?;
        wait::until_true("a request on its way", LIMIT, || Ok(!rig.fake.bulks().is_empty()))?;
        rig.reconfigure(&rig.fake.url(), &good.url())?;
        let took = reload(indexer(&mut rig)?, RELOADED, 1)?;
        println!("{name}: reloaded after {took:?}");
        ensure!(indexer(&mut rig)?.output().contains("elasticsearch.hosts"), "the log does not say what changed");
        let bad = std::mem::replace(&mut rig.fake, good);
        rig.wait_documents(1_000)?;
        assert_eq!(bad.num_documents(), 0);
        assert_eq!(rig.metric("indexer_config_reloads_total", &DONE)?, 1.0);
        assert_eq!(rig.metric("indexer_config_reloads_total", &REFUSED)?, 0.0);
        rig.judge(1_000, &[])?;
    }
    Ok(())
}

/// A shipper and an indexer behind one broker that hangs; what is changed is the way to it.
#[test]
fn o13_a_reload_is_prompt_while_the_broker_hangs() -> Result<()> {
    let broker = Proxied::take()?;
    let (client, proxy): (&KafkaClient, _) = (broker.kafka(), broker.proxy());
    let through = proxy.addr().to_string();
    let mut rig = Rig::on(client, &through, "o13-broker", 2)?;
    let mut shipper = rig.start()?;
    rig.append("a.log", rig.lines("a.log", 0..1_000))?;
    rig.wait_for_records(1_000)?;
    let mut indexers = IndexerRig::on(client, &through, "o13-broker", 2, "", "")?;
    indexers.produce(0..1_000, "a")?;
    indexers.start()?;
    indexers.wait_documents(1_000)?;
    proxy.set(Mode::BlackHole)?;
    rig.append("a.log", rig.lines("a.log", 1_000..2_000))?;
    shipper.wait_metric("shipper_pending_events", &[], LIMIT, |pending| pending > 0.0)?;
    rig.set("kafka.brokers", json!([client.bootstrap()]));
    rig.launch()?;
    let took = reload(&mut shipper, RELOADED, 1)?;
    rig.wait_until_whole(LIMIT)?;
    indexers.reconfigure(&through, client.bootstrap())?;
    indexers.produce(1_000..2_000, "a")?;
    let took_indexer = reload(indexer(&mut indexers)?, RELOADED, 1)?;
    println!("reloaded after {took:?} and {took_indexer:?}");
    wait::until_true("what was sent meanwhile to be counted", LIMIT, || Ok(shipper.check_counts()? == 2_000.0))?;
    shipper.stop()?;
    indexers.judge(2_000, &[])
}

/// 20,000 lines over 12 s and a reload a second; at full length in `heavy`.
#[test]
fn o14_reloads_while_writing_lose_nothing() -> Result<()> {
    check_o14("o14", 1_667, Duration::from_secs(1), 12)
}

#[test]
fn o14_an_indexer_reloaded_while_it_indexes_loses_nothing() -> Result<()> {
    const NUM: usize = 20_000;
    let mut rig = IndexerRig::new("o14-indexer", 4, "max_documents: 100")?;
    rig.fake.script(|_| Answer::After(Duration::from_millis(50), Box::new(Answer::Index)));
    rig.start()?;
    let is_known = |rig: &IndexerRig| -> Result<bool> {
        let body = http::get(&format!("http://{}/pipeline", rig.admin))?.body;
        Ok(!body.contains("not read to its end yet"))
    };
    wait::until_true("the ledger to be read", LIMIT, || Ok(is_known(&rig).unwrap_or_default()))?;
    let threads = num_threads(indexer(&mut rig)?)?;
    let mut consumed = 0.0;
    for number in 0..6 {
        rig.produce(number * NUM / 6..(number + 1) * NUM / 6, "a")?;
        let (before, after) = (100 + number, 101 + number);
        rig.reconfigure(&format!("max_documents: {before}"), &format!("max_documents: {after}"))?;
        if number % 2 == 0 {
            reload(indexer(&mut rig)?, RELOADED, number / 2 + 1)?;
        } else {
            rig.reconfigure("index_wait: 3s", "index_wait: soon")?;
            reload(indexer(&mut rig)?, KEPT, number / 2 + 1)?;
            rig.reconfigure("index_wait: soon", "index_wait: 3s")?;
        }
        let now = rig.metric("indexer_consumed_records_total", &[])?;
        ensure!(now >= consumed, "a counter went back: {now} after {consumed}");
        consumed = now;
        ensure!(rig.is_live()?, "not live");
        ensure!(is_known(&rig)?, "the pipeline was lost sight of");
    }
    rig.wait_documents(NUM)?;
    rig.wait_ready(LIMIT)?;
    wait_threads(indexer(&mut rig)?, threads)?;
    assert_eq!(rig.metric("indexer_config_reloads_total", &REFUSED)?, 3.0);
    rig.judge(NUM, &[])?;
    println!("{} documents in {} items", NUM, rig.fake.num_items());
    Ok(())
}

/// The files are held open by the pipeline alone: the next one must go on with them.
#[test]
fn o14_files_deleted_before_they_were_read_outlive_a_reload() -> Result<()> {
    let broker = Proxied::take()?;
    let proxy = broker.proxy();
    let mut rig = broker.rig("o14-deleted", 2)?;
    // A disk that is nearly full is another story.
    rig.set("limits", json!({"memory": "8MiB", "hold_deleted": {"min_free": "1%"}}));
    let mut shipper = rig.start()?;
    for name in ["a.log", "b.log"] {
        rig.append(name, rig.lines(name, 0..100))?;
    }
    rig.wait_for_records(200)?;
    proxy.set(Mode::BlackHole)?;
    for name in ["a.log", "b.log"] {
        rig.append(name, rig.lines(name, 100..60_000))?;
    }
    shipper.wait_metric("shipper_pending_events", &[], LIMIT, |pending| pending > 0.0)?;
    fs::remove_file(rig.path("a.log"))?;
    rig.rename("b.log", "b.away")?;
    rig.set("files.rescan", "9s");
    rig.launch()?;
    reload(&mut shipper, RELOADED, 1)?;
    rig.set("files.rescan", "8s");
    rig.launch()?;
    reload(&mut shipper, RELOADED, 2)?;
    proxy.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.check_counts()?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()
}

/// As Kubernetes updates a volume: a folder beside, and a link that is renamed over the one before.
fn swap(volume: &Path, files: &[(&str, &Path)]) -> Result<()> {
    let number = fs::read_dir(volume)?.count();
    let fresh = volume.join(format!("..{number}"));
    fs::create_dir(&fresh)?;
    for (name, from) in files {
        fs::copy(from, fresh.join(name))?;
        let link = volume.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    symlink(fresh.file_name().context("a name")?, volume.join("..new"))?;
    Ok(fs::rename(volume.join("..new"), volume.join("..data"))?)
}

/// Five times as fast as in the case: valid for 18 s instead of 90 s, replaced at 12 s, closed at 18 s, judged from 19 s on. The
/// broker demands a certificate, too, and its connections are closed as well.
#[test]
fn o20_certificates_replaced_on_disk_are_used_without_a_restart() -> Result<()> {
    const VALID: Duration = Duration::from_secs(18);
    const REPLACED: Duration = Duration::from_secs(12);
    let authority = Authority::new(&scratch::dir("o20-authority")?)?;
    let (certificate, key) = authority.issue("o20-server", "IP:127.0.0.1")?;
    let (kafka, proxy) = kafka_with_certificates(&authority)?;
    let volume = scratch::dir("o20-volume")?;
    let issue = |name: &str, validity: Duration| -> Result<()> {
        let (certificate, key) = authority.issue_for(name, validity)?;
        swap(&volume, &[("tls.crt", &certificate), ("tls.key", &key)])
    };
    let (crt, pem) = (volume.join("tls.crt").display().to_string(), volume.join("tls.key").display().to_string());
    let ca = authority.certificate().display().to_string();
    let options = format!(
        "security.protocol: ssl, ssl.ca.location: \"{ca}\", ssl.certificate.location: \"{crt}\", ssl.key.location: \"{pem}\""
    );
    let mut rig = IndexerRig::on(&kafka, &proxy.addr().to_string(), "o20", 2, "max_backoff: 1s", &options)?;
    let plain = rig.fake.url();
    rig.fake = FakeElasticsearch::start_secured(&authority.certificate(), &certificate, &key)?;
    let secured = format!(
        "{}\"], ca_file: \"{ca}\", client_certificate_file: \"{crt}\", client_key_file: \"{pem}",
        rig.fake.url()
    );
    rig.reconfigure(&format!("{plain}\"]"), &format!("{secured}\""))?;
    let started = Instant::now();
    issue("first", VALID)?;
    rig.start()?;
    let failed = |rig: &IndexerRig| rig.metric("indexer_bulk_requests_total", &["code=\"error\""]);
    let (mut num, mut failed_before) = (0, None);
    let mut is_replaced = false;
    let mut is_closed = false;
    while started.elapsed() < VALID + Duration::from_secs(4) {
        rig.produce(num..num + 20, "a")?;
        num += 20;
        if !is_replaced && started.elapsed() >= REPLACED {
            issue("second", Duration::from_secs(3_600))?;
            is_replaced = true;
        }
        if !is_closed && started.elapsed() >= VALID {
            rig.fake.cut();
            proxy.cut();
            is_closed = true;
        }
        if failed_before.is_none() && started.elapsed() >= VALID + Duration::from_secs(1) {
            failed_before = Some(failed(&rig)?);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    wait::until_true("the last records", LIMIT, || Ok(rig.fake.num_documents() == num))?;
    assert_eq!(Some(failed(&rig)?), failed_before, "requests failed with the new certificate");
    assert_eq!(rig.metric("indexer_config_reloads_total", &DONE)?, 1.0);
    ensure!(indexer(&mut rig)?.output().contains("tls.crt"), "the log does not name the file");
    rig.judge(num, &[])
}

/// A broker that wants a certificate at one of its listeners, and the proxy before that one.
fn kafka_with_certificates(authority: &Authority) -> Result<(Kafka, Proxy)> {
    let listens = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
    let proxy = Proxy::start(listens)?;
    let (certificate, key) = authority.issue("o20-broker", "IP:127.0.0.1")?;
    let store = certificate.with_extension("store");
    fs::write(&store, fs::read_to_string(key)? + &fs::read_to_string(certificate)?)?;
    let setting = |name: &str, value: String| (name.to_owned(), value);
    let options = kafka::Options {
        entrances: vec![Entrance { protocol: "SSL", ..Entrance::plain(listens, proxy.addr()) }],
        settings: vec![
            setting("ssl.keystore.type", "PEM".to_owned()),
            setting("ssl.keystore.location", store.display().to_string()),
            setting("ssl.truststore.type", "PEM".to_owned()),
            setting("ssl.truststore.location", authority.certificate().display().to_string()),
            setting("ssl.client.auth", "required".to_owned()),
        ],
        ..Default::default()
    };
    Ok((Kafka::start(&options)?, proxy))
}

#[test]
fn a_changed_file_is_noticed_and_what_cannot_change_is_refused_by_name() -> Result<()> {
    let mut rig = Rig::new("reload-noticed", 1)?;
    let mut shipper = rig.start()?;
    shipper.wait_logged("shipper started")?;
    rig.append("a.log", rig.lines("a.log", 0..10))?;
    rig.wait_for_records(10)?;
    // No signal: the file is renamed into place.
    let config = rig.dir.join("shipper.yaml");
    rig.set("inputs.0.fields", json!({"team": "red"}));
    rig.launch()?;
    let line = wait_reload(&mut shipper, RELOADED, 1)?;
    ensure!(line.contains("inputs[0].fields"), "{line}");
    rig.append("a.log", rig.lines("a.log", 10..20))?;
    rig.wait_until_whole(LIMIT)?;
    let records = rig.records()?;
    let num_red = records.iter().filter(|record| record.text().contains(r#""team":"red""#)).count();
    assert_eq!((num_red, records.len()), (10, 20));
    // Cut off in the middle: whatever is tried, the old settings go on.
    let text = fs::read_to_string(&config)?;
    fs::write(&config, &text[..text.len() / 2])?;
    wait_reload(&mut shipper, KEPT, 1)?;
    rig.set("data_dir", json!(rig.dir.join("elsewhere")));
    rig.set("host.id", "another");
    rig.launch()?;
    wait_reload(&mut shipper, KEPT, 2)?;
    for name in ["data_dir: `data_dir` stands until a restart", "host.id: `host.id` stands until a restart"] {
        ensure!(shipper.log().contains(name), "{name} is not told");
    }
    rig.append("a.log", rig.lines("a.log", 20..30))?;
    rig.wait_until_whole(LIMIT)?;
    // What runs is written again, in other words: nothing to do.
    fs::write(&config, format!("{text}\n# a remark\n"))?;
    reload(&mut shipper, "the configuration is the one that runs", 1)?;
    assert_eq!(shipper.metric("shipper_config_reloads_total", &DONE)?, 1.0);
    shipper.stop()
}
