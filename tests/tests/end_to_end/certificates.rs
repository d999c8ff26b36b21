//! Whom both programs speak to and by what: certificates and logins in order and out of order, at a real broker and at servers
//! with real certificates. Logins to Elasticsearch and its foreign certificates are in `indexer_security`, client certificates
//! that are replaced in `reload`, logins by token in `tokens`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use millrace_tests::certificates::Authority;
use millrace_tests::fake_elasticsearch::FakeElasticsearch;
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::process::Launch;
use millrace_tests::rig::Rig;
use millrace_tests::scratch;

use crate::indexer_security::{check_silent, forbidden};
use crate::secured_kafka::{Both, Listener, PASSWORD, SecuredKafka, USER};

const UNVERIFIED: &str = "certificate verify failed";
const SHOW: &str = "openssl s_client -connect";

/// A file of the test's own, to be replaced.
fn file(name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
    let path = scratch::dir(name)?.join("file");
    fs::write(&path, content)?;
    Ok(path)
}

#[test]
fn a_broker_of_a_foreign_authority_is_refused_until_its_authority_is_in_the_file() -> Result<()> {
    let server = SecuredKafka::get()?;
    let foreign = Authority::new(&scratch::dir("foreign")?)?;
    let trusted = file("trusted", fs::read(foreign.certificate())?)?;
    let options = [("security.protocol", "ssl"), ("ssl.ca.location", &trusted.display().to_string())];
    let mut both = Both::new("kafka-foreign", Listener::Tls, &options)?;
    both.start()?;
    both.check_refused(UNVERIFIED, SHOW)?;
    // Not in the log alone: readiness says it as well.
    both.wait_blocked(UNVERIFIED)?;
    fs::write(&trusted, fs::read(server.authority.certificate())?)?;
    both.check_arrives()
}

/// The broker takes up another certificate while it runs; both programs need nothing.
fn check_renewed(name: &str, listener: Listener) -> Result<()> {
    let server = SecuredKafka::get()?;
    let mut both = Both::new(name, listener, &[("security.protocol", "ssl"), ("ssl.ca.location", &server.ca())])?;
    both.start()?;
    both.check_refused(UNVERIFIED, SHOW)?;
    server.renew(listener)?;
    both.check_arrives()
}

#[test]
fn an_expired_certificate_of_a_broker_is_refused_until_it_is_renewed() -> Result<()> {
    check_renewed("kafka-expired", Listener::Expired)
}

#[test]
fn a_broker_with_the_certificate_of_another_host_is_refused_until_it_has_its_own() -> Result<()> {
    check_renewed("kafka-elsewhere", Listener::Elsewhere)
}

#[test]
fn a_broker_without_tls_gets_nothing_in_plain_text_where_tls_is_asked_for() -> Result<()> {
    let server = SecuredKafka::get()?;
    let options = [("security.protocol", "ssl"), ("ssl.ca.location", &server.ca())];
    let mut both = Both::new("kafka-no-tls", Listener::NoTls, &options)?;
    both.start()?;
    both.check_refused("SSL handshake failed", "PLAINTEXT broker listener")?;
    both.reconfigure(Listener::Tls, &[])?;
    both.check_arrives()
}

#[test]
fn a_broker_that_wants_a_certificate_lets_nobody_in_without() -> Result<()> {
    let server = SecuredKafka::get()?;
    let options = [("security.protocol", "ssl"), ("ssl.ca.location", &server.ca())];
    let mut both = Both::new("kafka-mutual", Listener::Mutual, &options)?;
    both.start()?;
    both.check_refused("bad certificate", "ssl.certificate.location")?;
    let (certificate, key) = server.authority.issue("client", "DNS:client")?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    both.reconfigure(Listener::Mutual, &[("ssl.certificate.location", &certificate), ("ssl.key.location", &key)])?;
    both.check_arrives()
}

#[test]
fn passwords_by_plain_and_scram_are_held_against_the_brokers_and_the_right_one_is_taken_from_its_file() -> Result<()> {
    let server = SecuredKafka::get()?;
    // All at a time: both programs wait for the ledger before they give it up.
    let mut started = Vec::new();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let secret = file("password", "not-the-password")?;
        let options = [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &server.ca()),
            ("sasl.mechanism", mechanism),
            ("sasl.username", USER),
            ("sasl.password_file", &secret.display().to_string()),
        ];
        let mut both = Both::new(&format!("kafka-{}", mechanism.to_lowercase()), Listener::Sasl, &options)?;
        both.start()?;
        started.push((mechanism, secret, both));
    }
    for (mechanism, secret, both) in &mut started {
        both.check_refused("uthentication failed", "compare `sasl.mechanism`").context(*mechanism)?;
        fs::write(secret, PASSWORD)?;
    }
    for (mechanism, _, both) in started {
        both.check_arrives().context(mechanism)?;
    }
    Ok(())
}

/// An indexer before a server with TLS, which it is told by `settings`.
fn before(fake: FakeElasticsearch, name: &str, authority: &Authority, host: &str) -> Result<IndexerRig> {
    let mut rig = IndexerRig::new(name, 1, "max_backoff: 1s")?;
    let plain = format!("\"{}\"]", rig.fake.url());
    rig.reconfigure(&plain, &format!("\"{host}\"], ca_file: \"{}\"", authority.certificate().display()))?;
    rig.fake = fake;
    rig.produce(0..20, "a")?;
    rig.start()?;
    Ok(rig)
}

/// Says so within 30 s, with the host, and nothing arrived.
fn check_refused(rig: &IndexerRig, host: &str, cause: &str) -> Result<()> {
    let waited = rig.wait_blocked(cause);
    let (_, body) = rig.ready()?;
    waited.with_context(|| body.clone())?;
    ensure!(body.contains(host), "the host is not told: {body}");
    assert_eq!((rig.fake.num_documents(), rig.kafka.lag(&rig.name, &rig.name)?), (0, 20));
    Ok(())
}

#[test]
fn an_expired_certificate_of_elasticsearch_is_refused_until_it_is_renewed() -> Result<()> {
    let authority = Authority::new(&scratch::dir("es-expired")?)?;
    let (certificate, key) = authority.issue_between("expired", Some("IP:127.0.0.1"), -7_200..-3_600)?;
    let fake = FakeElasticsearch::start_with_tls(&certificate, &key)?;
    let host = fake.url();
    let mut rig = before(fake, "es-expired", &authority, &host)?;
    check_refused(&rig, &host, "certificate has expired")?;
    let (certificate, key) = authority.issue_between("renewed", Some("IP:127.0.0.1"), -1..3_600)?;
    rig.fake.replace_certificate(&certificate, &key)?;
    rig.judge(20, &[])
}

#[test]
fn an_elasticsearch_without_tls_gets_nothing_in_plain_text_where_tls_is_asked_for() -> Result<()> {
    let authority = Authority::new(&scratch::dir("es-plain")?)?;
    let fake = FakeElasticsearch::start()?;
    let host = fake.url().replace("http:", "https:");
    let mut rig = before(fake, "es-plain", &authority, &host)?;
    check_refused(&rig, &host, "does it speak TLS?")?;
    assert!(rig.fake.bulks().is_empty());
    rig.reconfigure(&host, &rig.fake.url())?;
    rig.judge(20, &[])
}

#[test]
fn an_elasticsearch_that_wants_a_certificate_lets_nobody_in_without() -> Result<()> {
    let authority = Authority::new(&scratch::dir("es-mutual")?)?;
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1")?;
    let fake = FakeElasticsearch::start_secured(&authority.certificate(), &certificate, &key)?;
    let host = fake.url();
    let mut rig = before(fake, "es-mutual", &authority, &host)?;
    check_refused(&rig, &host, "certificate required")?;
    let (certificate, key) = authority.issue("client", "DNS:client")?;
    let both = format!(
        "request_timeout: 5s, client_certificate_file: \"{}\", client_key_file: \"{}\"",
        certificate.display(),
        key.display()
    );
    rig.reconfigure("request_timeout: 5s", &both)?;
    rig.judge(20, &[])
}

/// As those of the indexer (`indexer_security`), and in the list of processes.
#[test]
fn o19_secrets_are_in_no_log_metric_status_or_process_list_of_the_shipper() -> Result<()> {
    let server = SecuredKafka::get()?;
    let mut rig = Rig::on(&server.kafka, &server.address(Listener::Sasl), "o19-shipper-login", 1)?;
    for (name, value) in [
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", &server.ca()),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
        ("debug", "security,conf,broker,protocol"),
    ] {
        rig.set_option(name, value);
    }
    rig.append("a.log", rig.lines("a.log", 0..10))?;
    let mut shipper = rig.start_as(&rig.launch()?.env("MILLRACE_LOG", "trace"))?;
    rig.wait_until_whole(LIMIT)?;
    let secrets = forbidden(USER, PASSWORD);
    let seen = [("metrics", shipper.metrics()?), ("status", shipper.status()?.to_string())];
    for (what, text) in seen {
        check_silent(what, &text, &secrets)?;
    }
    check_silent("the process list", &fs::read_to_string(format!("/proc/{}/cmdline", shipper.pid()))?, &secrets)?;
    shipper.signal(rustix::process::Signal::ABORT)?;
    shipper.wait(LIMIT)?;
    check_silent("the log", &shipper.log(), &secrets)?;
    // Nor could it be on a command line: no flag takes one.
    for program in ["shipper", "indexer"] {
        let mut help =
            Launch::binary(program, &format!("{program}-help"), &rig.dir)?.args(["run", "--help"]).start()?;
        assert_eq!(help.wait(LIMIT)?, 0);
        let told = help.output();
        let mut flags = told.lines().filter(|line| line.trim_start().starts_with('-')).peekable();
        ensure!(flags.peek().is_some(), "no flags: {told}");
        let is_secret = |line: &&str| {
            !line.contains("<FILE>") && ["password", "secret", "token", "key"].iter().any(|word| line.contains(word))
        };
        ensure!(flags.find(is_secret).is_none(), "{program} takes a secret: {told}");
    }
    Ok(())
}
