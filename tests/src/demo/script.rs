//! What happens when, from the first line to the verdict.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use millrace_common::terminal::table::grouped;

use super::apps::{App, Traced, Written};
use super::machine::{self, MachineLog, Snapshot};
use super::program::Program;
use super::progress::{Sample, Sampler};
use super::screen::{Screen, megabytes};
use super::setup::{self, INDICES, Place};
use super::verdict::{self, Expected, Source};
use crate::elasticsearch::Elasticsearch;
use crate::kafka::Kafka;
use crate::servers;

const TICK: Duration = Duration::from_secs(1);
/// How long the last lines may take to arrive after the applications have ended.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// What is done to the pipeline while logs go on.
#[derive(Clone, Copy, Debug)]
enum Event {
    BeginRequest,
    KillShipper,
    RestartShipper,
    EndRequest,
    KillIndexer,
    RestartIndexer,
    StopElasticsearch,
    StartElasticsearch,
}

/// Seconds after the first line.
const EVENTS: [(u64, Event); 8] = [
    (8, Event::BeginRequest),
    (10, Event::KillShipper),
    (14, Event::RestartShipper),
    (16, Event::EndRequest),
    (20, Event::KillIndexer),
    (24, Event::RestartIndexer),
    (30, Event::StopElasticsearch),
    (36, Event::StartElasticsearch),
];
const APPLICATIONS_END: Duration = Duration::from_secs(48);

/// Runs the demo in `dir`, which is emptied first. `keep` leaves everything running at the end.
///
/// Returns whether every line is in the index once.
///
/// # Errors
///
/// If a server or program does not start, ends by itself, or does not stop.
pub fn run(dir: &Path, keep: bool) -> Result<bool> {
    let mut screen = Screen::new();
    setup::clear(dir)?;
    let place = Place::prepare(dir)?;
    let machine = machine::find();
    setup::write_settings(&place, &machine)?;
    screen.say("starting Kafka and Elasticsearch ...");
    let (kafka, node) = setup::start_servers(&place)?;
    let programs = [Program::shipper(&place)?, Program::indexer(&place, 0)?, Program::indexer(&place, 1)?];
    let mut demo = Demo {
        screen,
        place,
        kafka,
        node,
        programs,
        sampler: Sampler::default(),
        traced: Traced::default(),
        is_request_over: false,
        machine,
        done: Vec::new(),
    };
    demo.start_programs()?;
    let (web, worker) = demo.run_applications()?;
    let expected = demo.expect(web, worker)?;
    demo.wait_for_arrival(&expected)?;
    demo.finish(expected, keep)
}

struct Demo {
    screen: Screen,
    place: Place,
    kafka: Kafka,
    node: Elasticsearch,
    /// Shipper, then both indexers.
    programs: [Program; 3],
    sampler: Sampler,
    traced: Traced,
    is_request_over: bool,
    machine: Vec<MachineLog>,
    /// What was done on the way, for the summary.
    done: Vec<String>,
}

impl Demo {
    fn start_programs(&mut self) -> Result<()> {
        self.screen.say("starting the shipper and two indexers ...");
        for program in &mut self.programs {
            program.start()?;
        }
        for program in &mut self.programs {
            program.wait_ready()?;
        }
        Ok(())
    }

    /// Has the applications write while the events happen.
    fn run_applications(&mut self) -> Result<(Written, Written)> {
        let web = App::web(&self.place.log_file("web.log"), &self.traced)?;
        let worker = App::worker(&self.place.log_file("worker.log"))?;
        let backlog = self.count_machine()?.iter().map(|(_, snapshot)| snapshot.tally.total()).sum::<u64>();
        let files = self.machine.len();
        self.screen
            .say(&format!("two applications write; {files} logs of this machine bring {} lines", grouped(backlog)));
        let started = Instant::now();
        let mut events = EVENTS.iter().peekable();
        while started.elapsed() < APPLICATIONS_END {
            while let Some((_, event)) = events.next_if(|(second, _)| started.elapsed().as_secs() >= *second) {
                self.act(*event)?;
            }
            self.show(|| backlog + web.num_lines() + worker.num_lines())?;
            self.trace_progress();
            std::thread::sleep(TICK);
        }
        Ok((web.stop()?, worker.stop()?))
    }

    fn act(&mut self, event: Event) -> Result<()> {
        let said = match event {
            Event::BeginRequest => {
                self.traced.step("GET /export");
                return Ok(());
            }
            Event::EndRequest => {
                self.is_request_over = true;
                self.traced.step("GET /export 200, all rows sent");
                return Ok(());
            }
            Event::KillShipper => {
                self.programs[0].kill9()?;
                self.done.push("shipper killed with -9".to_owned());
                "kill -9 of the shipper; logs go on"
            }
            Event::RestartShipper => {
                self.programs[0].start()?;
                "the shipper is started again"
            }
            Event::KillIndexer => {
                self.programs[1].kill9()?;
                self.done.push("indexer-1 killed with -9".to_owned());
                "kill -9 of indexer-1; the other one takes over"
            }
            Event::RestartIndexer => {
                self.programs[1].start()?;
                "indexer-1 is started again"
            }
            Event::StopElasticsearch => {
                self.node.stop()?;
                self.done.push("Elasticsearch stopped and started".to_owned());
                "Elasticsearch is stopped; logs go on and wait in Kafka"
            }
            Event::StartElasticsearch => {
                self.node.begin_start()?;
                "Elasticsearch is started again"
            }
        };
        self.screen.say(said);
        Ok(())
    }

    /// One line a second of the slow request, between its first and its last.
    fn trace_progress(&self) {
        let num_steps = self.traced.num_steps();
        if num_steps > 0 && !self.is_request_over {
            self.traced.step(&format!("{} rows exported", num_steps * 10_000));
        }
    }

    /// Reads and shows a sample, and fails if a program has ended without being asked to.
    fn show(&mut self, written: impl Fn() -> u64) -> Result<Sample> {
        for program in &mut self.programs {
            program.ensure_running()?;
        }
        let sample = self.sampler.sample(&self.kafka, &self.node, &mut self.programs);
        let killed = self.programs.each_ref().map(|program| program.num_kills);
        // Asked last: no line may seem to arrive before it was written.
        self.screen.show(written(), &sample, killed);
        Ok(sample)
    }

    fn count_machine(&self) -> Result<Vec<(MachineLog, Snapshot)>> {
        let count = |log: &MachineLog| Ok((log.clone(), log.read()?));
        self.machine.iter().map(count).collect()
    }

    fn expect(&mut self, web: Written, worker: Written) -> Result<Expected> {
        self.screen.say("the applications have ended; waiting for the last lines to arrive");
        self.node.finish_start()?;
        let machine = self.count_machine()?;
        Ok(Expected { web, worker, machine })
    }

    /// Waits until the index holds as many documents as lines were written and nothing is on its way.
    ///
    /// Reaching the limit is no error: the verdict will count what is missing.
    fn wait_for_arrival(&mut self, expected: &Expected) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < ARRIVAL_LIMIT {
            let sample = self.show(|| expected.num_lines())?;
            if sample.lag == 0 && sample.indexed + sample.dead_lettered >= expected.num_lines() {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
        self.screen.say(&format!("not everything arrived within {ARRIVAL_LIMIT:?}"));
        Ok(())
    }

    fn finish(mut self, expected: Expected, keep: bool) -> Result<bool> {
        self.screen.leave_table();
        self.screen.say("counting every line, source by source");
        let found = verdict::read_index(&self.node, &expected)?;
        let (num_foreign, num_later) = (found.num_foreign, found.num_later());
        let sources = found.compare(expected);
        let (table, mut is_whole) = verdict::table(&sources);
        let mut text = format!("\n{table}");
        if num_foreign > 0 {
            writeln!(text, "  and {num_foreign} documents of no known source")?;
            is_whole = false;
        }
        if num_later > 0 {
            writeln!(text, "  ({num_later} documents of lines that this machine wrote after the count are left out)")?;
        }
        self.screen.print(&text);
        self.screen.print(&self.on_the_way()?);
        is_whole &= self.print_request()?;
        is_whole &= self.stop_programs()?;
        let verdict = if is_whole { "every line is in the index, once" } else { "NOT as promised" };
        self.screen.print(&format!("Verdict: {verdict}: {}\n", sentence(&sources)));
        let Self { screen, place, kafka, node, programs, .. } = self;
        node.stop()?;
        kafka.stop()?;
        if keep {
            // Started anew, so that until here everything died with this process.
            place.stack.up()?;
            for program in &programs {
                program.start_detached(&place.dir)?;
            }
        }
        let mut screen = screen;
        screen.print(&where_next(&place, &programs, keep));
        Ok(is_whole)
    }

    fn on_the_way(&self) -> Result<String> {
        let mut text = format!("\nOn the way: {}.\n", self.done.join(",\n  "));
        let [first, second, third] = self.programs.each_ref().map(|program| megabytes(Some(program.peak_rss)));
        writeln!(text, "Peak memory: shipper {first}, indexer-1 {second}, indexer-2 {third}.")?;
        Ok(text)
    }

    /// Searches for the slow request and prints its lines; true if all are there, in order.
    fn print_request(&mut self) -> Result<bool> {
        let id = self.traced.id().context("the web application never began its slow request")?;
        let lines = verdict::request_lines(&self.node, &id)?;
        let mut text = format!("\nRequest {id}, under way while the shipper was killed:\n");
        for (time, message) in &lines {
            writeln!(text, "  {time}  {message}")?;
        }
        self.screen.print(&text);
        let is_in_order = lines.is_sorted();
        let num_steps = usize::try_from(self.traced.num_steps())?;
        Ok(is_in_order && lines.len() == num_steps)
    }

    /// Ends the programs with SIGTERM; true if each says that all it took is acknowledged.
    fn stop_programs(&mut self) -> Result<bool> {
        let mut codes = Vec::new();
        for program in &mut self.programs {
            codes.push((program.name, program.terminate(STOP_LIMIT)?));
        }
        let text: Vec<String> = codes.iter().map(|(name, code)| format!("{name} {code}")).collect();
        self.screen.print(&format!("\nExit codes after SIGTERM (0: all acknowledged): {}\n", text.join(", ")));
        Ok(codes.iter().all(|(_, code)| *code == 0))
    }
}

fn sentence(sources: &[Source]) -> String {
    let sum = |number: fn(&Source) -> u64| grouped(sources.iter().map(number).sum());
    let written = sum(|source| source.written.total());
    format!("{written} lines written, {} missing, {} doubled", sum(Source::missing), sum(Source::doubled))
}

fn where_next(place: &Place, programs: &[Program; 3], keep: bool) -> String {
    let dir = place.shown(&place.dir);
    let readme = place.shown(&servers::checkout().join("README.md"));
    let mut text = String::from("\nWhere to look next\n");
    for (what, meaning) in [
        (format!("{dir}/*.yaml"), "the settings of this run"),
        (format!("{dir}/*.log"), "what the programs said"),
        (readme, "the guide"),
    ] {
        text += &format!("  {what:<24} {meaning}\n");
    }
    if keep {
        let search = format!("{}/{INDICES}/_search?q=message:failed", place.stack.elasticsearch().url());
        text += &format!(
            "Still running
  Elasticsearch   curl '{search}'
  Kafka           {}
  shipper         {}
  indexers        {} and {}
  new lines in {dir}/logs/web.log go on to the index
  stop it all with `make down`\n",
            place.stack.kafka().bootstrap(),
            programs[0].url("/metrics"),
            programs[1].url("/metrics"),
            programs[2].url("/metrics"),
        );
    } else {
        text += &format!("  {:<24} leaves everything running, to look at\n", "KEEP=1 make demo");
    }
    text
}
