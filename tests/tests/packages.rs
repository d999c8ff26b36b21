//! The packages of `make dist` in a clean Debian: installed, run as their units say, upgraded, removed, purged. Run by
//! `make dist-check`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::kafka::Kafka;
use millrace_tests::process::{Launch, Process};
use millrace_tests::servers::checkout;
use millrace_tests::unit::Unit;
use millrace_tests::{ports, scratch, wait};

const LIMIT: Duration = Duration::from_secs(60);
const INDICES: &str = "applogs-*";
const PACKAGES: [&str; 2] = ["millrace-shipper", "millrace-indexer"];

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    ensure!(output.status.success(), "{program} {}: {}\n{words}", args.join(" "), output.status);
    Ok(words)
}

/// systemd, whose tools judge the units, and the packages that ours depend on, without versions.
fn needs() -> Result<Vec<String>> {
    let mut names = BTreeSet::from(["systemd".to_owned()]);
    for entry in fs::read_dir(checkout().join("dist")).context("nothing is packed: run `make dist`")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let depends = run("dpkg-deb", &["--field", &path.to_string_lossy(), "Depends"])?;
            names.extend(depends.split(',').filter_map(|need| need.split_whitespace().next()).map(str::to_owned));
        }
    }
    Ok(names.into_iter().collect())
}

/// A Debian of the release that this machine runs.
struct Debian {
    root: PathBuf,
    dir: PathBuf,
}

impl Debian {
    fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "packages are installed by root: run it with sudo");
        let release = fs::read_to_string("/etc/os-release")?;
        let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("no release")?;
        // It is made once; what a test does is done to a copy.
        let cache = checkout().join(format!("target/debian-{release}.tar"));
        if !cache.exists() {
            let path = cache.to_string_lossy();
            let include = format!("--include={}", needs()?.join(","));
            let made = run("mmdebstrap", &["--variant=essential", &include, release, &path]);
            made.context("a clean Debian takes the package mmdebstrap, and a mirror")?;
        }
        let dir = scratch::dir("packages")?;
        let root = dir.join("root");
        fs::create_dir(&root)?;
        run("tar", &["--extract", "--file", &cache.to_string_lossy(), "--directory", &root.to_string_lossy()])?;
        Ok(Self { root, dir })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Runs a command in it to its end.
    fn run(&self, args: &[&str]) -> Result<String> {
        let root = self.root.to_string_lossy();
        run("unshare", &[&["--mount", "sh", "-c", ENTER, "sh", &root], args].concat())
    }

    /// Starts what the unit of a package starts, as its user and without any capability.
    fn start(&self, package: &str) -> Result<Process> {
        let unit = Unit::read(&self.path(&format!("/usr/lib/systemd/system/{package}.service")))?;
        let groups = [unit.all("Group"), unit.all("SupplementaryGroups")].concat().join(",");
        let log = self.dir.join(format!("{package}.log"));
        Launch::program(package, "unshare", &log)
            .args(["--mount", "sh", "-c", ENTER, "sh"])
            .arg(&self.root)
            .args(["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
            .args(["--reuid", unit.get("User")?, "--regid", unit.get("Group")?, "--groups", &groups])
            .args(unit.get("ExecStart")?.split(' '))
            .start()
    }

    /// All files, but for what dpkg and the system note about themselves.
    fn files(&self) -> Result<BTreeSet<String>> {
        let found = run("find", &[&self.root.to_string_lossy(), "-xdev"])?;
        let root = self.root.to_string_lossy().into_owned();
        let noted = ["/run/", "/var/lib/dpkg/", "/var/log/", "/var/cache/", "/etc/.pwd.lock"];
        let names = found.lines().map(|path| path.trim_start_matches(&root));
        // The files of users before their last change.
        let names = names.filter(|path| !noted.iter().any(|noted| path.starts_with(noted)) && !path.ends_with('-'));
        Ok(names.map(str::to_owned).collect())
    }

    /// Installs the packages of a folder, keeping what was changed in their configuration.
    fn install(&self, folder: &Path) -> Result<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".deb") {
                fs::copy(entry.path(), self.path(&format!("/tmp/{name}")))?;
                names.push(format!("/tmp/{name}"));
            }
        }
        ensure!(names.len() == PACKAGES.len(), "{}: {names:?}", folder.display());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let words = self.run(&[&["dpkg", "--force-confold", "--install"], &names[..]].concat())?;
        names.iter().try_for_each(|name| fs::remove_file(self.path(name)))?;
        Ok(words)
    }

    fn users(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.path("/etc/passwd"))?;
        Ok(text.lines().filter(|line| line.starts_with("millrace-")).map(str::to_owned).collect())
    }
}

const ENTER: &str = r#"
root=$1
shift
mount -t proc proc "$root/proc"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
exec chroot "$root" "$@"
"#;

/// The unpacked archive of `make dist`.
fn stage() -> Result<PathBuf> {
    let entries = fs::read_dir(checkout().join("dist/stage")).context("nothing is packed: run `make dist`")?;
    let entry = entries.into_iter().next().context("nothing is packed")??;
    Ok(entry.path())
}

/// Changes a file of configuration as an operator does.
fn configure(debian: &Debian, kafka: &Kafka, node: &Elasticsearch) -> Result<()> {
    for program in ["shipper", "indexer"] {
        let path = debian.path(&format!("/etc/millrace/{program}.yaml"));
        let text = fs::read_to_string(&path)?;
        let text = text.replace("localhost:9092", kafka.bootstrap()).replace("http://localhost:9200", node.url());
        fs::write(path, format!("{text}admin: {{ listen: \"127.0.0.1:{}\" }}\n", ports::free()?))?;
    }
    Ok(())
}

/// Appends lines that only root and the group `adm` may read.
fn append(debian: &Debian, numbers: std::ops::Range<usize>) -> Result<()> {
    let path = debian.path("/var/log/app/app.log");
    fs::create_dir_all(path.parent().context("a folder")?)?;
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    text.extend(numbers.map(|number| format!("{{\"message\":\"line {number}\"}}\n")));
    fs::write(&path, text)?;
    debian.run(&["chown", "root:adm", "/var/log/app/app.log"])?;
    debian.run(&["chmod", "640", "/var/log/app/app.log"]).map(|_| ())
}

/// Runs both until the index has `num` documents, and stops them.
fn ship(debian: &Debian, node: &Elasticsearch, num: usize) -> Result<()> {
    let mut running = PACKAGES.iter().map(|package| debian.start(package)).collect::<Result<Vec<_>>>()?;
    let done = wait::until_true(&format!("{num} documents"), LIMIT, || {
        running.iter_mut().try_for_each(Process::ensure_running)?;
        Ok(node.count(INDICES)? >= num as u64)
    });
    done.with_context(|| running.iter().map(Process::log_tail).collect::<String>())?;
    assert_eq!(node.count(INDICES)?, num as u64);
    for mut process in running {
        process.stop_within(LIMIT)?;
    }
    Ok(())
}

#[test]
fn packages_are_installed_run_upgraded_and_removed_without_a_trace() -> Result<()> {
    let debian = Debian::new()?;
    let (kafka, node) = (Kafka::shared()?, Elasticsearch::shared()?);
    kafka.create_topic("logs", 2, &[])?;
    kafka.create_topic("logs.dlq", 1, &[])?;
    let before = debian.files()?;

    debian.install(&checkout().join("dist"))?;
    let version = env!("CARGO_PKG_VERSION");
    for program in ["shipper", "indexer"] {
        let told = debian.run(&[program, "--version"])?;
        ensure!(told.starts_with(&format!("{program} {version} (")), "{told}");
        debian.run(&[program, "check", "--config", &format!("/etc/millrace/{program}.yaml")])?;
        let unit = format!("/usr/lib/systemd/system/millrace-{program}.service");
        let told = debian.run(&["systemd-analyze", "verify", "--man=no", &unit])?;
        ensure!(told.is_empty(), "{told}");
        // Of 100; what is left is that it has a network and sees users and files.
        debian.run(&["systemd-analyze", "security", "--offline=true", "--threshold=20", &unit])?;
    }
    configure(&debian, kafka, node)?;
    append(&debian, 0..100)?;
    ship(&debian, node, 100)?;

    let config = debian.path("/etc/millrace/shipper.yaml");
    let (users, changed) = (debian.users()?, fs::read_to_string(&config)?);
    let newer = debian.dir.join("newer");
    run("cp", &["-R", &stage()?.to_string_lossy(), &newer.to_string_lossy()])?;
    // The new version brings another example, which must not win over the operator's.
    fs::write(newer.join("config/shipper.yaml"), "# Another example.\n")?;
    let (script, out) = (checkout().join("scripts/deb"), debian.dir.join("debs"));
    run(&script.to_string_lossy(), &[&newer.to_string_lossy(), &format!("{version}+1"), &out.to_string_lossy()])?;
    debian.install(&out)?;
    let told = debian.run(&["dpkg-query", "--show", "--showformat=${Version} ", PACKAGES[0], PACKAGES[1]])?;
    assert_eq!(told.trim_end(), format!("{version}+1 {version}+1"));
    assert_eq!((debian.users()?, fs::read_to_string(&config)?), (users, changed));
    append(&debian, 100..150)?;
    ship(&debian, node, 150)?;
    // The state was kept: nothing was sent again.
    assert_eq!(kafka.end_offsets("logs")?.values().sum::<i64>(), 150);

    debian.run(&["dpkg", "--remove", PACKAGES[0], PACKAGES[1]])?;
    let kept = |path: &str| debian.path(path).exists();
    ensure!(!kept("/usr/bin/shipper") && !kept("/usr/bin/indexer") && !kept("/usr/share/doc/millrace-shipper"));
    ensure!(kept("/etc/millrace/shipper.yaml") && kept("/var/lib/millrace-shipper/checkpoint"));
    debian.run(&["dpkg", "--purge", PACKAGES[0], PACKAGES[1]])?;
    let after = debian.files()?;
    let left: Vec<_> = after.difference(&before).filter(|path| !path.starts_with("/var/log/app")).collect();
    ensure!(left.is_empty() && before.is_subset(&after), "left: {left:?}");
    assert_eq!(debian.users()?, [""; 0]);
    Ok(())
}
