//! What is packed for an installation: units, example configurations and manual pages, held against the programs. The packages
//! themselves are installed by `make dist-check`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::process::{Launch, built};
use millrace_tests::servers::checkout;
use millrace_tests::unit::Unit;
use millrace_tests::{scratch, wait};

const PROGRAMS: [&str; 2] = ["shipper", "indexer"];

fn unit(program: &str) -> Result<Unit> {
    Unit::read(&checkout().join(format!("packaging/systemd/millrace-{program}.service")))
}

fn run(program: &str, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(built(program)?).args(args).current_dir(checkout()).output()?;
    let words = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(words)?))
}

#[test]
fn units_start_what_the_programs_understand_with_their_example_configuration() -> Result<()> {
    for program in PROGRAMS {
        let unit = unit(program)?;
        let (installed, example) =
            (format!("/etc/millrace/{program}.yaml"), format!("packaging/config/{program}.yaml"));
        // The folder of templates is where the package puts it.
        let text = fs::read_to_string(checkout().join(&example))?.replace("/etc/millrace/templates", "templates");
        let path = millrace_tests::scratch::dir(&format!("unit-{program}"))?.join("config.yaml");
        fs::write(&path, text)?;
        for command in [unit.all("ExecStart"), unit.all("ExecReload")].concat() {
            let words: Vec<&str> = command.split(' ').collect();
            let [binary, verb, args @ ..] = &words[..] else { panic!("{command}") };
            if *binary == "/bin/kill" {
                assert_eq!(command, "/bin/kill -HUP $MAINPID");
                continue;
            }
            assert_eq!(*binary, format!("/usr/bin/{program}"));
            ensure!(["run", "check"].contains(verb) && args.contains(&&*installed), "{command}");
            let path = path.to_string_lossy();
            let args: Vec<&str> = args.iter().map(|arg| if *arg == installed { &*path } else { arg }).collect();
            // `check` reads the settings as `run` does.
            let (code, words) = run(program, &[&["check"], &args[..]].concat())?;
            ensure!(code == Some(0), "{program}: {code:?}: {words}");
        }
    }
    Ok(())
}

#[test]
fn units_leave_the_programs_no_right_that_they_need_not_and_time_to_stop() -> Result<()> {
    for program in PROGRAMS {
        let unit = unit(program)?;
        let user = format!("millrace-{program}");
        for (key, value) in [
            ("User", user.as_str()),
            ("Group", &user),
            ("Type", "exec"),
            ("Restart", "always"),
            ("StartLimitIntervalSec", "0"),
            ("KillSignal", "SIGTERM"),
            ("SuccessExitStatus", "75"),
            ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", ""),
            ("AmbientCapabilities", ""),
            ("ProtectSystem", "strict"),
            ("LimitCORE", "0"),
        ] {
            assert_eq!(unit.get(key)?, value, "{program}: {key}");
        }
        let state = unit.all("StateDirectory");
        assert_eq!(state, if program == "shipper" { vec![user.clone()] } else { Vec::new() }, "{program}");
        let config = fs::read_to_string(checkout().join(format!("packaging/config/{program}.yaml")))?;
        ensure!(program == "indexer" || config.contains(&format!("data_dir: /var/lib/{user}")), "{config}");
        let number = |text: &str, after: &str, unit: &str| -> Result<u64> {
            let rest = text.split_once(after).with_context(|| format!("no `{after}`"))?.1;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            ensure!(rest[digits.len()..].starts_with(unit), "{after}{rest}");
            Ok(digits.parse()?)
        };
        let own = number(&config, "limits: { memory: ", "MiB")?;
        ensure!(own * 3 / 2 <= number(unit.get("MemoryMax")?, "", "M")?, "{program}: {own} MiB");
        // 25s is what `shutdown.deadline` is by default.
        ensure!(number(unit.get("TimeoutStopSec")?, "", "s")? > 25 + 10, "{program}");
    }
    Ok(())
}

/// The commands below `args`, from the program's own help.
fn commands(program: &str, args: &[&str]) -> Result<Vec<String>> {
    let (_, help) = run(program, &[args, &["--help"]].concat())?;
    let section = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let section = section.split_once("\n\n").map_or(section, |(section, _)| section);
    let names = section.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut all = Vec::new();
    for name in names {
        let path = [args, &[name]].concat();
        all.push(path.join(" "));
        all.extend(commands(program, &path)?);
    }
    Ok(all)
}

#[test]
fn manual_pages_name_every_command_and_the_version_names_the_target() -> Result<()> {
    for (program, known) in [("shipper", "explain"), ("indexer", "dlq replay")] {
        let (code, page) = run(program, &["man"])?;
        ensure!(code == Some(0), "{page}");
        let commands = commands(program, &[])?;
        ensure!(commands.iter().any(|command| command == known), "{commands:?}");
        for command in commands {
            ensure!(page.contains(&format!("\n.SS \"{program} {command}\"\n")), "{program}: no {command}");
        }
        let (_, version) = run(program, &["--version"])?;
        let parts = version.trim_end().strip_prefix(&format!("{program} {} (", env!("CARGO_PKG_VERSION")));
        let target = parts.and_then(|parts| parts.strip_suffix(')')?.split_once(", ")).map(|(_, target)| target);
        ensure!(target.is_some_and(|target| target.contains("-linux-")), "{version}");
    }
    Ok(())
}

/// What the kernel would write of each, had the shell before it not been told otherwise.
#[test]
fn no_core_dump_is_written_of_what_holds_secrets() -> Result<()> {
    let dir = scratch::dir("dumps")?;
    let (shipper, indexer) = (dir.join("shipper.yaml"), dir.join("indexer.yaml"));
    let (kafka, admin) = ("brokers: [\"127.0.0.1:9\"]", "admin: { listen: \"127.0.0.1:0\" }");
    let data = dir.join("data");
    let inputs = format!("data_dir: {data:?}\ninputs: [ {{ id: a, paths: [{data:?}] }} ]");
    fs::write(&shipper, format!("kafka: {{ {kafka}, topic: a }}\n{admin}\n{inputs}\n"))?;
    let elasticsearch = "elasticsearch: { hosts: [\"http://127.0.0.1:9\"] }";
    fs::write(&indexer, format!("kafka: {{ {kafka}, topics: [a] }}\n{admin}\n{elasticsearch}\n"))?;
    let text = |path: &std::path::Path| path.display().to_string();
    for (program, args, limit) in [
        ("shipper", vec![text(&built("shipper")?), "run".into(), "-c".into(), text(&shipper)], "0"),
        ("indexer", vec![text(&built("indexer")?), "run".into(), "-c".into(), text(&indexer)], "0"),
        ("sleep", vec!["sleep".into(), "60".into()], "unlimited"),
    ] {
        let launch = Launch::program(program, "/bin/sh", &dir.join(format!("{program}.log")));
        let mut process = launch.args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\""]).args(args).start()?;
        wait::until_true(&format!("{program} to run"), Duration::from_secs(30), || {
            process.ensure_running()?;
            let name = fs::read_to_string(format!("/proc/{}/comm", process.pid()))?;
            Ok(name.trim() == program && (program == "sleep" || process.output().contains("admin endpoint")))
        })?;
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid()))?;
        let of_dumps = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).context("no limit")?;
        ensure!(of_dumps.split_whitespace().take(2).eq([limit, limit]), "{program}: {of_dumps}");
    }
    Ok(())
}
