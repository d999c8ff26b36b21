//! Logins by token (OAUTHBEARER) at a real broker that validates signed tokens, by both programs.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use millrace_common::kafka::{Options, create_admin, producer};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::process::Launch;
use millrace_tests::rig::Rig;
use millrace_tests::tokens::{Provider, replace};
use millrace_tests::{http, scratch};

use crate::indexer_security::check_silent;
use crate::secured_kafka::{Both, Listener, REAUTHENTICATE, SecuredKafka, USER};

const HOUR: i64 = 3_600;

fn file(name: &str) -> Result<PathBuf> {
    Ok(scratch::dir(name)?.join("token"))
}

/// As in `kafka.options`.
fn options<'a>(ca: &'a str, token: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", ca),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token_file", token),
        ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1,identityPoolId=pool-1"),
    ]
}

/// The parts of a token that let somebody in, or tell who it is.
fn parts(token: &str) -> Vec<String> {
    token.split('.').skip(1).map(str::to_owned).collect()
}

/// Tokens of an hour, scaled by 240. Not less: the file is looked at every eight seconds, and a login by the last second of a
/// token counts for less than the second that a broker wants between two.
#[test]
fn a_token_that_is_renewed_is_taken_up_on_connections_that_stay() -> Result<()> {
    const LIFE: Duration = Duration::from_secs(15);
    let server = SecuredKafka::get()?;
    let token = file("token-renewed")?;
    let mut both = Both::new("token-renewed", Listener::Token, &options(&server.ca(), &token.display().to_string()))?;
    let expires = Instant::now() + LIFE;
    replace(&token, &server.provider.token(USER, LIFE.as_secs() as i64)?)?;
    both.start()?;
    both.wait_arrived()?;
    ensure!(Instant::now() < expires, "too slow a machine: the first token was of no use");
    replace(&token, &server.provider.token(USER, HOUR)?)?;
    // Past the end of the first token, and of every login with it.
    thread::sleep(expires + REAUTHENTICATE - Instant::now());
    both.add()?;
    both.wait_arrived()?;
    for process in both.processes()? {
        // A broker cuts a connection that is used after its login has ended.
        let log = process.output();
        for trouble in ["Disconnected", "in state AUTH", "invalid_token"] {
            ensure!(!log.contains(trouble), "{} had trouble: {}", process.name(), process.log_tail());
        }
    }
    both.check_arrives()
}

#[test]
fn a_token_that_lets_nobody_in_is_told_until_its_file_holds_another() -> Result<()> {
    let server = SecuredKafka::get()?;
    let (right, foreign) = (server.provider.token(USER, HOUR)?, Provider::new()?.token(USER, HOUR)?);
    let expired = server.provider.token(USER, -HOUR)?;
    // All at a time: each waits for the next time that the file is looked at.
    let mut started = Vec::new();
    for (name, first, told) in [
        ("foreign", Some(foreign), ["invalid_token", "compare the one in `sasl.oauthbearer"]),
        ("expired", Some(expired), [" expired at ", "look at what renews it"]),
        ("no-jwt", Some("not-a-token-Zq7".to_owned()), ["is no JWT", "write a signed JWT into it"]),
        ("absent", None, ["cannot read the secret", "check that the file is there"]),
    ] {
        let token = file(&format!("token-{name}"))?;
        if let Some(first) = &first {
            replace(&token, first)?;
        }
        let path = token.display().to_string();
        let mut both = Both::new(&format!("token-{name}"), Listener::Token, &options(&server.ca(), &path))?;
        both.start()?;
        started.push((name, token, first, told, both));
    }
    for (name, token, _, [cause, remedy], both) in &mut started {
        let place = if *name == "foreign" { server.address(Listener::Token) } else { token.display().to_string() };
        both.check_told(&[&place, cause, remedy]).context(*name)?;
        // Not in the log alone.
        both.wait_blocked(cause).context(*name)?;
    }
    for (_, token, ..) in &started {
        replace(token, &right)?;
    }
    for (name, _, first, _, mut both) in started {
        both.wait_arrived().context(name)?;
        let secrets = [parts(&right), first.map(|first| vec![first]).unwrap_or_default()].concat();
        for process in both.processes()? {
            check_silent(process.name(), &process.output(), &secrets)?;
        }
        both.check_arrives().context(name)?;
    }
    Ok(())
}

#[test]
fn o19_a_token_is_in_no_log_metric_status_or_process_list() -> Result<()> {
    let server = SecuredKafka::get()?;
    let token = file("o19-token")?;
    let text = server.provider.token(USER, HOUR)?;
    replace(&token, &text)?;
    let (ca, path) = (server.ca(), token.display().to_string());
    let debug = [("debug", "security,conf,broker,protocol,msg,metadata")];
    let options: Vec<_> = options(&ca, &path).into_iter().chain(debug).collect();
    let address = server.address(Listener::Token);

    let mut rig = Rig::on(&server.kafka, &address, "o19-token", 1)?;
    options.iter().for_each(|(name, value)| rig.set_option(name, *value));
    rig.append("a.log", rig.lines("a.log", 0..10))?;
    let mut shipper = rig.start_as(&rig.launch()?.env("MILLRACE_LOG", "trace"))?;
    rig.wait_until_whole(LIMIT)?;

    let yaml: Vec<_> = options.iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect();
    let mut indexing = IndexerRig::on(&server.kafka, &address, "o19-token", 1, "", &yaml.join(", "))?;
    indexing.launch = indexing.launch.env("MILLRACE_LOG", "trace");
    indexing.produce(0..10, "a")?;
    indexing.start()?;
    indexing.wait_documents(10)?;
    let indexer = indexing.indexer.as_mut().context("it was started")?;

    let secrets = parts(&text);
    let mut seen =
        vec![("the shipper's metrics", shipper.metrics()?), ("the shipper's status", shipper.status()?.to_string())];
    for page in ["metrics", "status", "readyz"] {
        seen.push(("a page of the indexer", http::get(&format!("http://{}/{page}", indexing.admin))?.body));
    }
    for process in [&*shipper, &*indexer] {
        seen.push(("the process list", fs::read_to_string(format!("/proc/{}/cmdline", process.pid()))?));
        seen.push(("the environment", fs::read_to_string(format!("/proc/{}/environ", process.pid()))?));
    }
    shipper.stop()?;
    indexer.terminate(LIMIT)?;
    seen.extend([("the shipper's log", shipper.output()), ("the indexer's log", indexer.output())]);
    seen.iter().try_for_each(|(what, text)| check_silent(what, text, &secrets))
}

/// Runs `check` with `flags` on a file, and gives its exit code and what it prints.
fn check(program: &str, dir: &Path, kafka: &str, flags: &[&str]) -> Result<(i32, String)> {
    let text = match program {
        "shipper" => {
            format!("data_dir: /d\ninputs: [{{ id: a, paths: [\"/a\"] }}]\nkafka: {{ topic: logs, {kafka} }}\n")
        }
        _ => format!("elasticsearch: {{ hosts: [\"http://127.0.0.1:9\"] }}\nkafka: {{ topics: [logs], {kafka} }}\n"),
    };
    let path = dir.join(format!("{program}.yaml"));
    fs::write(&path, text)?;
    let name = format!("{program}-{}", fs::read_dir(dir)?.count());
    let mut check = Launch::binary(program, &name, dir)?.arg("check").args(flags).arg("-c").arg(&path).start()?;
    Ok((check.wait(LIMIT)?, check.output()))
}

#[test]
fn oauthbearer_without_a_token_or_a_protocol_is_refused_by_check_with_the_line() -> Result<()> {
    let dir = scratch::dir("oauthbearer")?;
    let (sasl, mechanism) = ("security.protocol: sasl_ssl", "sasl.mechanism: OAUTHBEARER");
    let file = "sasl.oauthbearer.token_file: /token";
    for (options, told) in [
        (format!("{sasl}, {mechanism}"), "name the file that holds it"),
        (format!("{mechanism}, {file}"), "set `security.protocol` to sasl_ssl"),
        (format!("{sasl}, sasl.mechanism: PLAIN, {file}"), "set `sasl.mechanism` to OAUTHBEARER"),
        (format!("{sasl}, {mechanism}, {file}, sasl.oauthbearer.method: oidc"), "name its file in `sasl.oauthbearer"),
    ] {
        for (program, line) in [("shipper", ":3:"), ("indexer", ":2:")] {
            let (code, output) =
                check(program, &dir, &format!("brokers: [\"k:9092\"], options: {{ {options} }}"), &[])?;
            ensure!(code == 78 && output.contains(told) && output.contains(line), "{program}, {options}: {output}");
        }
    }
    let options = format!("{sasl}, {mechanism}, {file}");
    for program in ["shipper", "indexer"] {
        let (code, output) = check(program, &dir, &format!("brokers: [\"k:9092\"], options: {{ {options} }}"), &[])?;
        ensure!(code == 0, "{program}: {output}");
    }
    Ok(())
}

#[test]
fn check_online_logs_in_with_the_token_and_names_the_file_of_one_that_is_none() -> Result<()> {
    let server = SecuredKafka::get()?;
    let dir = scratch::dir("token-online")?;
    let token = dir.join("token");
    let path = token.display().to_string();
    let yaml: Vec<_> =
        options(&server.ca(), &path).iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect();
    let address = server.address(Listener::Token);
    let kafka = format!("brokers: [\"{address}\"], options: {{ {} }}", yaml.join(", "));
    replace(&token, &server.provider.token(USER, -HOUR)?)?;
    for program in ["shipper", "indexer"] {
        let (_, output) = check(program, &dir, &kafka, &["--online"])?;
        ensure!(output.contains(&path) && output.contains(" expired at "), "{program}: {output}");
    }
    replace(&token, &server.provider.token(USER, HOUR)?)?;
    for program in ["shipper", "indexer"] {
        let (_, output) = check(program, &dir, &kafka, &["--online"])?;
        ensure!(output.contains("does not exist"), "{program} did not hear that there is no such topic: {output}");
    }
    Ok(())
}

/// What a broker hears at a login; only this shows what is sent beside the token.
#[test]
fn extensions_are_sent_with_the_token() -> Result<()> {
    const API_VERSIONS: u16 = 18;
    const SASL_HANDSHAKE: u16 = 17;
    const SASL_AUTHENTICATE: u16 = 36;
    let token = file("token-extensions")?;
    let text = Provider::new()?.token(USER, HOUR)?;
    replace(&token, &text)?;
    let broker = TcpListener::bind("127.0.0.1:0")?;
    let path = token.display().to_string();
    let options = options("", &path).into_iter().filter(|(name, _)| name.starts_with("sasl."));
    let options = options.chain([("security.protocol", "sasl_plaintext")]);
    let config = producer("shipper", &[broker.local_addr()?.to_string()], &Options::from_iter(options))?;
    let client = create_admin(&config)?;
    let (mut connection, _) = broker.accept()?;
    connection.set_read_timeout(Some(LIMIT))?;
    let said = loop {
        let mut size = [0; 4];
        connection.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        connection.read_exact(&mut request)?;
        let [api, version] = [0, 2].map(|at| u16::from_be_bytes([request[at], request[at + 1]]));
        let mut answer = request[4..8].to_vec();
        match api {
            // Not in this version, and then: these three.
            API_VERSIONS => {
                answer.extend([0, if version == 0 { 0 } else { 35 }, 0, 0, 0, 3]);
                for (api, last) in [(API_VERSIONS, 0), (SASL_HANDSHAKE, 1), (SASL_AUTHENTICATE, 0)] {
                    answer.extend([0, api as u8, 0, 0, 0, last]);
                }
            }
            // No error, and the one mechanism.
            SASL_HANDSHAKE => {
                answer.extend([0, 0, 0, 0, 0, 1, 0, 11]);
                answer.extend(b"OAUTHBEARER");
            }
            SASL_AUTHENTICATE => break request,
            _ => anyhow::bail!("asked for {api} before it logged in"),
        }
        connection.write_all(&(answer.len() as u32).to_be_bytes())?;
        connection.write_all(&answer)?;
    };
    let expected = format!("n,,\u{1}auth=Bearer {text}\u{1}logicalCluster=lkc-1\u{1}identityPoolId=pool-1\u{1}\u{1}");
    ensure!(said.ends_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&said));
    drop(client);
    Ok(())
}
