//! TLS, logins and secrets: a real Elasticsearch with security on and certificates made here, a real broker with SASL.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::certificates::Authority;
use millrace_tests::elasticsearch::{Elasticsearch, Options};
use millrace_tests::fake_elasticsearch::Answer;
use millrace_tests::http::{self, Access};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::process::Launch;
use millrace_tests::{ports, scratch, servers, wait};

use crate::secured_kafka::{self, Listener, SecuredKafka};

const USER: &str = "harness";
const PASSWORD: &str = "long-enough-1";

struct Secured {
    node: Elasticsearch,
    port: u16,
    authority: Authority,
}

/// A node that speaks TLS alone, as 127.0.0.1, and lets nobody in without a login.
fn secured() -> Result<&'static Secured> {
    static SHARED: OnceLock<Result<Secured, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    shared.as_ref().map_err(|error| anyhow::anyhow!("the secured Elasticsearch did not start: {error}"))
}

fn start() -> Result<Secured> {
    let dir = scratch::dir("secured")?;
    let config = dir.join("config");
    fs::create_dir(&config)?;
    let authority = Authority::new(&scratch::dir("authority")?)?;
    let (certificate, key) = authority.issue("node", "IP:127.0.0.1")?;
    fs::copy(certificate, config.join("node.pem"))?;
    fs::copy(key, config.join("node.key"))?;
    for name in ["users", "users_roles"] {
        fs::write(config.join(name), "")?;
    }
    let home = servers::home("elasticsearch")?;
    let made = Command::new(home.join("bin/elasticsearch-users"))
        .args(["useradd", USER, "-p", PASSWORD, "-r", "superuser"])
        .env("ES_PATH_CONF", &config)
        .env("ES_JAVA_HOME", servers::java_home(17)?)
        .output()?;
    ensure!(made.status.success(), "cannot make a user: {}", String::from_utf8_lossy(&made.stderr));
    let setting = |name: &str, value: &str| (format!("xpack.{name}"), value.to_owned());
    let port = ports::free()?;
    let options = Options {
        dir: Some(dir),
        port: Some(port),
        settings: vec![
            setting("security.enabled", "true"),
            setting("security.autoconfiguration.enabled", "false"),
            setting("security.http.ssl.enabled", "true"),
            setting("security.http.ssl.key", "node.key"),
            setting("security.http.ssl.certificate", "node.pem"),
            setting("security.authc.realms.file.file1.order", "0"),
        ],
        access: Some(Access::secured(&fs::read(authority.certificate())?, USER, PASSWORD)?),
        ..Options::default()
    };
    Ok(Secured { node: Elasticsearch::start(&options)?, port, authority })
}

/// An indexer that is told this much about its server, in YAML.
fn indexer(name: &str, settings: &str) -> Result<IndexerRig> {
    let secured = secured()?;
    let rig = IndexerRig::new(name, 2, "max_backoff: 1s")?;
    let plain = format!("hosts: [\"{}\"]", rig.fake.url());
    let host =
        if settings.contains("hosts:") { String::new() } else { format!("hosts: [\"{}\"], ", secured.node.url()) };
    rig.reconfigure(&plain, &format!("{host}{settings}"))?;
    Ok(rig)
}

fn ca() -> Result<String> {
    Ok(format!("ca_file: \"{}\"", secured()?.authority.certificate().display()))
}

fn check_indexed(name: &str, settings: &str) -> Result<()> {
    let mut rig = indexer(name, settings)?;
    rig.produce(0..2_000, name)?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    assert_eq!(secured()?.node.count(name)?, 2_000);
    assert_eq!(rig.num_letters()?, 0);
    rig.wait_ready(Duration::from_secs(10))
}

/// Nothing arrives, and it says why; the counterpart shows that this alone was the reason.
fn check_refused(name: &str, settings: &str, words: &str) -> Result<()> {
    let mut rig = indexer(name, settings)?;
    rig.produce(0..10, name)?;
    rig.start()?;
    rig.wait_blocked(words)?;
    assert_eq!(secured()?.node.count(name)?, 0);
    assert_eq!((rig.kafka.lag(&rig.name, &rig.name)?, rig.num_letters()?), (10, 0));
    Ok(())
}

fn secret_file(name: &str, secret: &str) -> Result<PathBuf> {
    let path = scratch::dir(name)?.join("secret");
    fs::write(&path, format!("{secret}\n"))?;
    Ok(path)
}

#[test]
fn tls_with_an_authority_of_ones_own_and_basic_authentication() -> Result<()> {
    let file = secret_file("basic", PASSWORD)?;
    check_indexed("tls-basic", &format!("{}, username: {USER}, password_file: \"{}\"", ca()?, file.display()))
}

#[test]
fn tls_and_gzip() -> Result<()> {
    check_indexed("tls-gzip", &format!("{}, username: {USER}, password: {PASSWORD}, compression: gzip", ca()?))
}

/// The reduced distribution cannot keep keys and tokens (its index for them needs an analyzer of a module), so a scripted
/// server looks at what is sent.
#[test]
fn api_keys_and_bearer_tokens_are_sent_as_elasticsearch_wants_them() -> Result<()> {
    for (name, setting, scheme) in [("api-key", "api_key_file", "ApiKey"), ("bearer", "bearer_token_file", "Bearer")] {
        let file = secret_file(name, "VuaCfGcBCdbkQm-e5aOx:ui2lp2axTNmsyakw9tvNnw")?;
        let mut rig = IndexerRig::new(name, 1, "")?;
        let login = format!("request_timeout: 5s, {setting}: \"{}\"", file.display());
        rig.reconfigure("request_timeout: 5s", &login)?;
        rig.produce(0..100, "a")?;
        rig.start()?;
        rig.wait_documents(100)?;
        let expected = format!("{scheme} VuaCfGcBCdbkQm-e5aOx:ui2lp2axTNmsyakw9tvNnw");
        ensure!(rig.fake.bulks().iter().all(|bulk| bulk.authorization == expected), "{name}");
        rig.judge(100, &[])?;
    }
    Ok(())
}

#[test]
fn a_server_of_a_foreign_authority_is_refused() -> Result<()> {
    let foreign = Authority::new(&scratch::dir("foreign-authority")?)?;
    let login = format!("username: {USER}, password: {PASSWORD}");
    check_refused(
        "tls-foreign",
        &format!("ca_file: \"{}\", {login}", foreign.certificate().display()),
        "certificate verify failed",
    )?;
    check_refused("tls-unknown", &login, "certificate verify failed")?;
    check_indexed("tls-unverified", &format!("verify: none, {login}"))
}

#[test]
fn a_server_that_poses_as_another_host_is_refused() -> Result<()> {
    let settings = format!(
        "hosts: [\"https://localhost:{}\"], {}, username: {USER}, password: {PASSWORD}",
        secured()?.port,
        ca()?
    );
    check_refused("tls-host", &settings, "certificate verify failed")
}

#[test]
fn a_wrong_password_holds_and_the_right_one_is_taken_without_a_restart() -> Result<()> {
    let file = secret_file("rotated", "not-the-password")?;
    let settings = format!("{}, username: {USER}, password_file: \"{}\"", ca()?, file.display());
    let mut rig = indexer("tls-rotated", &settings)?;
    rig.produce(0..100, "tls-rotated")?;
    rig.start()?;
    rig.wait_blocked("401")?;
    fs::write(&file, PASSWORD)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    assert_eq!(secured()?.node.count("tls-rotated")?, 100);
    wait::until_true("readiness", LIMIT, || Ok(rig.ready()?.0 == 200))
}

/// What must be found nowhere: the secret itself, and in base64 as HTTP carries it.
pub fn forbidden(user: &str, secret: &str) -> Vec<String> {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    vec![secret.to_owned(), encode(secret), encode(&format!("{user}:{secret}")), secret.replace('!', "%21")]
}

pub fn check_silent(what: &str, text: &str, secrets: &[String]) -> Result<()> {
    ensure!(!text.is_empty(), "{what} is empty, so nothing was tested");
    for secret in secrets {
        if let Some(at) = text.find(secret.trim_end_matches('=')) {
            anyhow::bail!(
                "{what} holds {secret}: …{}…",
                text[at.saturating_sub(200)..].chars().take(400).collect::<String>()
            );
        }
    }
    Ok(())
}

const WRONG_PASSWORD: &str = "sasl-Wrong-9x-secret!";

fn sasl_options(ca: &str, password: &str) -> String {
    format!(
        "security.protocol: sasl_ssl, ssl.ca.location: \"{ca}\", sasl.mechanism: PLAIN, sasl.username: {}, \
         sasl.password: \"{password}\", debug: \"security,conf,broker,protocol\"",
        secured_kafka::USER
    )
}

/// All that an operator sees of a process that talks too much.
fn everything(rig: &IndexerRig) -> Result<String> {
    let mut all = rig.indexer.as_ref().context("it was started")?.output();
    for path in ["metrics", "status", "readyz", "livez", ""] {
        all += &http::get(&format!("http://{}/{path}", rig.admin))?.body;
    }
    Ok(all)
}

#[test]
fn o19_secrets_are_in_no_log_metric_or_status_of_the_indexer() -> Result<()> {
    let server = SecuredKafka::get()?;
    let sasl = server.address(Listener::Sasl);
    let secret = "es-Kp4-secret!";
    for (name, user, login) in [
        ("o19-basic", "elastic", format!("username: elastic, password: \"{secret}\"")),
        ("o19-key", "", format!("api_key: \"{secret}\"")),
        ("o19-bearer", "", format!("bearer_token: \"{secret}\"")),
    ] {
        let mut secrets = forbidden(user, secret);
        secrets.extend(forbidden(secured_kafka::USER, secured_kafka::PASSWORD));
        let mut rig = IndexerRig::on(
            &server.kafka,
            &sasl,
            name,
            1,
            "max_backoff: 1s",
            &sasl_options(&server.ca(), secured_kafka::PASSWORD),
        )?;
        rig.reconfigure("request_timeout: 5s", &format!("request_timeout: 5s, {login}"))?;
        // The login is refused at first.
        rig.fake.script(|bulk| if bulk.number < 2 { Answer::refuse(401) } else { Answer::Index });
        rig.launch = rig.launch.clone().env("MILLRACE_LOG", "trace");
        rig.produce(0..100, "a")?;
        rig.start()?;
        rig.wait_documents(100)?;
        let sent = rig.fake.bulks().pop().context("no request")?.authorization;
        ensure!(secrets.iter().any(|secret| sent.contains(secret)), "the login was not used: {sent}");
        check_silent(name, &everything(&rig)?, &secrets)?;
        let mut indexer = rig.indexer.take().context("it was started")?;
        indexer.signal(rustix::process::Signal::ABORT)?;
        indexer.wait(LIMIT)?;
        check_silent(name, &indexer.output(), &secrets)?;
    }
    Ok(())
}

#[test]
fn o19_a_wrong_password_for_kafka_is_not_printed() -> Result<()> {
    let server = SecuredKafka::get()?;
    let sasl = server.address(Listener::Sasl);
    let secrets = forbidden(secured_kafka::USER, WRONG_PASSWORD);
    let mut rig =
        IndexerRig::on(&server.kafka, &sasl, "o19-wrong", 1, "", &sasl_options(&server.ca(), WRONG_PASSWORD))?;
    rig.launch = rig.launch.clone().env("MILLRACE_LOG", "trace");
    rig.start()?;
    let log = || rig.indexer.as_ref().map(|indexer| indexer.output()).unwrap_or_default();
    wait::until_true("the refused login in the log", LIMIT, || Ok(log().contains("Authentication failed")))
        .with_context(log)?;
    check_silent("the indexer", &everything(&rig)?, &secrets)?;
    let mut shipper = millrace_tests::rig::Rig::without_topic(&server.kafka, &sasl, "o19-shipper")?;
    let options = [
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", &server.ca()),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", secured_kafka::USER),
        ("sasl.password", WRONG_PASSWORD),
        ("debug", "security,conf,broker"),
    ];
    options.iter().for_each(|(name, value)| shipper.set_option(name, *value));
    let launch = shipper.launch()?.env("MILLRACE_LOG", "trace");
    let mut running = shipper.start_as(&launch)?;
    running.wait_logged("Authentication failed")?;
    let seen = running.log() + &running.metrics()? + &running.status()?.to_string();
    check_silent("the shipper", &seen, &secrets)
}

#[test]
fn o19_faults_in_the_settings_do_not_print_the_secrets_beside_them() -> Result<()> {
    let secret = "url-Rm8-secret!";
    let secrets = forbidden("user", secret);
    let dir = scratch::dir("o19-settings")?;
    let path = dir.join("indexer.yaml");
    let faulty = [
        format!("elasticsearch: {{ hosts: [\"https://user:{secret}@es:9200\"] }}"),
        format!("elasticsearch: {{ hosts: [\"https://user:{secret}@es:port\"] }}"),
        format!("elasticsearch: {{ hosts: [\"http://es:9200\"], username: user, password: \"{secret}\", pasword: x }}"),
        format!("elasticsearch: {{ hosts: [\"http://es:9200\"], username: user, password: [\"{secret}\"] }}"),
        format!("elasticsearch: {{ hosts: [\"http://es:9200\"], api_key: {{ key: \"{secret}\" }} }}"),
        format!("elasticsearch: {{ hosts: [\"http://es:9200\"] }}\nlimits: {{ memory: 1 }} }}\nx: \"{secret}"),
    ];
    for (number, text) in faulty.iter().enumerate() {
        fs::write(
            &path,
            format!(
                "kafka: {{ brokers: [\"k:9092\"], topics: [logs], options: {{ {} }} }}\n{text}\n",
                sasl_options(&path.display().to_string(), secret)
            ),
        )?;
        for command in ["check", "run"] {
            let name = format!("settings-{number}-{command}");
            let launch = Launch::indexer(&name, &dir)?.env("MILLRACE_LOG", "trace").args([command, "-c"]).arg(&path);
            let mut process = launch.start()?;
            assert_eq!(process.wait(LIMIT)?, 78, "{text}");
            check_silent(&name, &process.output(), &secrets)?;
        }
    }
    let flags = ["run", "--brokers", "k:9092", "--topic", "logs", "--elasticsearch"];
    for (name, host) in [("flag", format!("https://user:{secret}@es:9200")), ("odd", format!("user:{secret}@es"))] {
        let mut process = Launch::indexer(name, &dir)?.args(flags).arg(host).start()?;
        assert_eq!(process.wait(LIMIT)?, 78);
        check_silent(name, &process.output(), &secrets)?;
    }
    Ok(())
}
