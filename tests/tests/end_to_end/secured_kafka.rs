//! A broker with a listener for each way in, and both programs before it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_tests::certificates::Authority;
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::kafka::{self, Entrance, Kafka};
use millrace_tests::process::Process;
use millrace_tests::rig::{Rig, Shipper};
use millrace_tests::tokens::{AUDIENCE, ISSUER, Provider};
use millrace_tests::while_used::WhileUsed;
use millrace_tests::{ports, scratch, wait};

pub const USER: &str = "app";
/// With a character that an address would escape.
pub const PASSWORD: &str = "sasl-Zq7-secret!";

/// A login by token counts for as long; an hour is usual. The library logs in again after nine tenths of it.
pub const REAUTHENTICATE: Duration = Duration::from_secs(10);

/// The ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    NoTls,
    Tls,
    /// Wants a certificate of the client.
    Mutual,
    /// With a certificate that has expired.
    Expired,
    /// With the certificate of another host.
    Elsewhere,
    /// TLS and a login.
    Sasl,
    /// TLS and a login by token, to be done again every few seconds.
    Token,
}

impl Listener {
    const ALL: [Self; 7] =
        [Self::NoTls, Self::Tls, Self::Mutual, Self::Expired, Self::Elsewhere, Self::Sasl, Self::Token];

    fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::NoTls => "PLAINTEXT",
            Self::Sasl | Self::Token => "SASL_SSL",
            _ => "SSL",
        }
    }
}

/// One broker for all tests that run at a time. It ends with the last of them.
pub struct SecuredKafka {
    pub kafka: Kafka,
    pub authority: Authority,
    /// Whose tokens it takes.
    pub provider: Provider,
    dir: PathBuf,
    addresses: Vec<SocketAddr>,
}

impl SecuredKafka {
    pub fn get() -> Result<Arc<Self>> {
        static SHARED: WhileUsed<SecuredKafka> = WhileUsed::new();
        SHARED.get(Self::start)
    }

    fn start() -> Result<Self> {
        let dir = scratch::dir("secured-kafka")?;
        let authority = Authority::new(&scratch::dir("secured-authority")?)?;
        let addresses = Listener::ALL.map(|_| ports::free().map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
        let addresses = addresses.into_iter().collect::<Result<Vec<_>>>()?;
        let entrance = |(listener, address): (&Listener, &SocketAddr)| Entrance {
            name: listener.name(),
            protocol: listener.protocol(),
            ..Entrance::plain(*address, *address)
        };
        let entrances = Listener::ALL.iter().zip(&addresses).map(entrance).collect();
        let mut settings = vec![
            ("ssl.truststore.type".to_owned(), "PEM".to_owned()),
            ("ssl.truststore.location".to_owned(), authority.certificate().display().to_string()),
            ("ssl.allow.san.changes".to_owned(), "true".to_owned()),
            ("listener.name.mutual.ssl.client.auth".to_owned(), "required".to_owned()),
            ("sasl.enabled.mechanisms".to_owned(), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned()),
        ];
        for (mechanism, module) in [
            ("plain", format!("plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\"")),
            ("scram-sha-256", "scram.ScramLoginModule required".to_owned()),
            ("scram-sha-512", "scram.ScramLoginModule required".to_owned()),
        ] {
            let name = format!("listener.name.sasl.{mechanism}.sasl.jaas.config");
            settings.push((name, format!("org.apache.kafka.common.security.{module};")));
        }
        let provider = Provider::new()?;
        let keys = dir.join("keys.json");
        fs::write(&keys, provider.key_set()?.to_string())?;
        let keys = format!("file://{}", keys.display());
        settings.extend(by_token(&keys));
        let has_tls = |listener: &&Listener| listener.protocol().ends_with("SSL");
        for listener in Listener::ALL.iter().filter(has_tls) {
            let (seconds, host) = match listener {
                Listener::Expired => (-7_200..-3_600, "IP:127.0.0.1"),
                Listener::Elsewhere => (-1..3_600, "DNS:elsewhere.example"),
                _ => (-1..3_600, "IP:127.0.0.1"),
            };
            let store = store(&authority, &dir, *listener, host, seconds)?;
            let prefix = format!("listener.name.{}.ssl.keystore", listener.name().to_lowercase());
            settings.push((format!("{prefix}.type"), "PEM".to_owned()));
            settings.push((format!("{prefix}.location"), store.display().to_string()));
        }
        let user = |mechanism: &str| format!("{mechanism}=[name={USER},password={PASSWORD}]");
        let scram = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(user).to_vec();
        let properties = vec![format!("org.apache.kafka.sasl.oauthbearer.allowed.urls={keys}")];
        let options = kafka::Options { entrances, settings, scram, properties, ..Default::default() };
        Ok(Self { kafka: Kafka::start(&options)?, authority, provider, dir, addresses })
    }

    /// The file with its authority.
    pub fn ca(&self) -> String {
        self.authority.certificate().display().to_string()
    }

    pub fn address(&self, listener: Listener) -> String {
        self.addresses[listener as usize].to_string()
    }

    /// Gives the listener a certificate that is in order, while the broker runs.
    pub fn renew(&self, listener: Listener) -> Result<()> {
        let store = store(&self.authority, &self.dir, listener, "IP:127.0.0.1", -1..3_600)?;
        let name = listener.name().to_lowercase();
        let setting = format!("listener.name.{name}.ssl.keystore.location={}", store.display());
        let what = ["--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", &setting];
        self.kafka.tool("kafka.admin.ConfigCommand", &what).map(|_| ())
    }
}

/// What the listener with tokens wants, of the provider with these keys.
fn by_token(keys: &str) -> Vec<(String, String)> {
    const PACKAGE: &str = "org.apache.kafka.common.security.oauthbearer";
    let mut settings = vec![
        ("sasl.oauthbearer.jwks.endpoint.url".to_owned(), keys.to_owned()),
        // By itself, Kafka 4.1.0 looks at no signature.
        ("sasl.oauthbearer.jwt.validator.class".to_owned(), format!("{PACKAGE}.BrokerJwtValidator")),
        ("sasl.oauthbearer.expected.audience".to_owned(), AUDIENCE.to_owned()),
        ("sasl.oauthbearer.expected.issuer".to_owned(), ISSUER.to_owned()),
        ("sasl.oauthbearer.clock.skew.seconds".to_owned(), "0".to_owned()),
    ];
    let prefix = format!("listener.name.{}", Listener::Token.name().to_lowercase());
    settings.push((format!("{prefix}.sasl.enabled.mechanisms"), "OAUTHBEARER".to_owned()));
    for (name, value) in [
        ("sasl.jaas.config", format!("{PACKAGE}.OAuthBearerLoginModule required;")),
        ("sasl.server.callback.handler.class", format!("{PACKAGE}.OAuthBearerValidatorCallbackHandler")),
        ("connections.max.reauth.ms", REAUTHENTICATE.as_millis().to_string()),
    ] {
        settings.push((format!("{prefix}.oauthbearer.{name}"), value));
    }
    settings
}

/// A new file with key and certificate, as the broker wants them.
fn store(
    authority: &Authority,
    dir: &Path,
    listener: Listener,
    host: &str,
    seconds: std::ops::Range<i64>,
) -> Result<PathBuf> {
    let (certificate, key) = authority.issue_between(&listener.name(), Some(host), seconds)?;
    let number = fs::read_dir(dir)?.count();
    let store = dir.join(format!("{}-{number}.pem", listener.name()));
    fs::write(&store, fs::read_to_string(key)? + &fs::read_to_string(certificate)?)?;
    Ok(store)
}

const NUM: usize = 20;

/// A shipper and an indexer that are told the same about the broker, each with something to bring.
pub struct Both {
    server: Arc<SecuredKafka>,
    shipper: Rig,
    running: Option<Shipper>,
    indexer: IndexerRig,
    address: String,
    options: String,
    num: usize,
}

impl Both {
    /// `options` as in `kafka.options`.
    pub fn new(name: &str, listener: Listener, options: &[(&str, &str)]) -> Result<Self> {
        let server = SecuredKafka::get()?;
        let address = server.address(listener);
        let mut shipper = Rig::on(&server.kafka, &address, name, 1)?;
        options.iter().for_each(|(name, value)| shipper.set_option(name, *value));
        let options = yaml(options);
        let indexer = IndexerRig::on(&server.kafka, &address, name, 1, "", &options)?;
        let mut both = Self { server, shipper, running: None, indexer, address, options, num: 0 };
        both.add()?;
        Ok(both)
    }

    /// Some more to bring for each.
    pub fn add(&mut self) -> Result<()> {
        let numbers = self.num..self.num + NUM;
        self.shipper.append("a.log", self.shipper.lines("a.log", numbers.start as u64..numbers.end as u64))?;
        self.indexer.produce(numbers.clone(), "a")?;
        self.num = numbers.end;
        Ok(())
    }

    /// Waits until all that there is has arrived.
    pub fn wait_arrived(&mut self) -> Result<()> {
        let waited = self.shipper.wait_until_whole(LIMIT).and_then(|()| self.indexer.wait_documents(self.num));
        waited.with_context(|| {
            self.processes().map(|both| both.map(|process| process.log_tail()).join("\n")).unwrap_or_default()
        })
    }

    pub fn start(&mut self) -> Result<()> {
        self.running = Some(self.shipper.start()?);
        self.indexer.start()
    }

    /// Waits until the log of each names the broker's address, the cause and what to do about it. Until then nothing arrived.
    pub fn check_refused(&mut self, cause: &str, remedy: &str) -> Result<()> {
        let address = self.address.clone();
        self.check_told(&[&address, cause, remedy])
    }

    /// Waits until the log of each has all these words in one line. Until then nothing arrived.
    pub fn check_told(&mut self, words: &[&str]) -> Result<()> {
        for process in self.processes()? {
            let has_told = |line: &str| words.iter().all(|word| line.contains(word));
            let what = format!("{}'s word of {words:?}", process.name());
            wait::until_true(&what, LIMIT, || {
                process.ensure_running()?;
                Ok(process.output().lines().any(has_told))
            })
            .with_context(|| process.log_tail())?;
        }
        assert_eq!((self.shipper.num_records()?, self.indexer.fake.num_documents()), (0, 0));
        Ok(())
    }

    /// The shipper and the indexer that were started.
    pub fn processes(&mut self) -> Result<[&mut Process; 2]> {
        let shipper = self.running.as_mut().context("it was started")?;
        Ok([&mut **shipper, self.indexer.indexer.as_mut().context("it was started")?])
    }

    /// Points both to another listener, or tells them more, while they run.
    pub fn reconfigure(&mut self, listener: Listener, options: &[(&str, &str)]) -> Result<()> {
        let address = self.server.address(listener);
        self.shipper.set("kafka.brokers", serde_json::json!([address]));
        options.iter().for_each(|(name, value)| self.shipper.set_option(name, *value));
        self.shipper.launch()?;
        self.indexer.reconfigure(&self.address, &address)?;
        let options = format!("{}, {}", self.options, yaml(options));
        self.indexer.reconfigure(&self.options, options.trim_end_matches(", "))?;
        self.address = address;
        Ok(())
    }

    /// All arrives, by the processes that were started.
    pub fn check_arrives(mut self) -> Result<()> {
        let waited = self.shipper.wait_until_whole(LIMIT);
        let mut shipper = self.running.take().context("it was started")?;
        waited.with_context(|| shipper.log_tail())?;
        shipper.stop()?;
        let judged = self.indexer.judge(self.num, &[]);
        judged.with_context(|| self.indexer.indexer.as_ref().map(|indexer| indexer.log_tail()).unwrap_or_default())
    }

    /// What the indexer says of itself.
    pub fn wait_blocked(&self, words: &str) -> Result<()> {
        self.indexer.wait_blocked(words).with_context(|| format!("{:?}", self.indexer.ready()))
    }
}

fn yaml(options: &[(&str, &str)]) -> String {
    options.iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect::<Vec<_>>().join(", ")
}
