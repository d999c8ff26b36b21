//! Single faults, set by hand, that random schedules meet too rarely.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::World;
use super::files::Handle;
use super::judge::message;

const LIVE: &str = "/logs/2.log";

/// Seeds of worlds with events of one line and of several.
const LINES: u64 = 0;
const SEVERAL: u64 = 1;

impl World {
    fn calm(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.heal();
        world.open_files = 100;
        world.close_idle = Duration::from_secs(3600);
        world.start();
        world
    }

    fn live(&self, content: &str) -> Handle {
        self.files.create(Path::new(LIVE), content.as_bytes())
    }

    fn rename_live(&self, to: &str) {
        self.files.rename(Path::new(LIVE), Path::new(to));
    }

    fn append_to(&self, handle: &Handle, text: &str) {
        handle.borrow_mut().content_mut().extend_from_slice(text.as_bytes());
    }

    fn tell(&mut self, handle: &Handle, text: &str) {
        self.append_to(handle, text);
        let now = self.now;
        self.tailer.iter_mut().for_each(|tailer| tailer.written(Path::new(LIVE), now));
    }

    /// A scan, and what follows from it at once.
    fn see(&mut self) {
        self.scan();
        self.turns();
    }

    /// A look at every file, of which nothing is read.
    fn examine(&mut self) {
        self.tailer.iter_mut().for_each(|tailer| tailer.look_around(self.now));
    }

    /// Some seconds, with the scans that are asked for.
    fn go_round(&mut self, num_seconds: u64) {
        for _ in 0..num_seconds {
            self.pass(Duration::from_secs(1));
            if self.tailer.as_mut().is_some_and(|tailer| tailer.take_wants_scan()) {
                self.scan();
            }
            if let Some(tailer) = &mut self.tailer {
                tailer.look_by_turns(self.now);
            }
            self.turns();
        }
    }

    fn num_lost(&self) -> u64 {
        self.tailer.iter().flat_map(|tailer| tailer.stats().lost_bytes.values()).sum()
    }

    fn messages(&self) -> Vec<String> {
        let mut messages: Vec<_> = self.topics.borrow().log.iter().map(|m| message(&m.value).0).collect();
        messages.sort();
        messages
    }
}

#[test]
fn growth_that_nothing_tells_of_is_seen_by_turns() {
    let mut world = World::calm(LINES);
    let handle = world.live("line-1\n");
    world.see();
    world.go_round(30);
    assert_eq!(world.messages(), ["line-1"]);
    world.append_to(&handle, "line-2\n");
    world.go_round(15);
    assert_eq!(world.messages(), ["line-1", "line-2"]);
}

/// A read that a truncation cuts short has met no end of a line. The file looks as it did when it was examined last.
#[test]
fn a_line_read_in_part_while_the_file_is_truncated_is_read_whole_in_the_copy() {
    let mut world = World::calm(LINES);
    let handle = world.live("");
    world.scan();
    world.go_round(1);
    world.tell(&handle, "line-1\n");
    world.turns();
    world.tell(&handle, "line-2-that-is-read-in-part\n");
    let content = handle.borrow_mut().content_mut().clone();
    handle.borrow_mut().rewritten = Some(Vec::new());
    world.turns();
    assert_eq!(world.messages(), ["line-1"]);
    world.files.create(Path::new("/logs/2.log.1"), &content);
    world.go_round(30);
    assert_eq!(world.messages(), ["line-1", "line-2-that-is-read-in-part"]);
}

/// The size of a rewrite can be seen before any of it is read.
#[test]
fn a_longer_rewrite_that_is_examined_before_it_is_read_loses_nothing() {
    for is_closed in [false, true] {
        let mut world = World::calm(LINES);
        world.close_idle = if is_closed { Duration::from_secs(20) } else { world.close_idle };
        world.start();
        let handle = world.live("line-1\n");
        world.see();
        world.go_round(30);
        let is_open = |world: &World| world.tailer.iter().any(|t| t.rows().any(|source| source.file.is_some()));
        assert_eq!(is_open(&world), !is_closed);
        *handle.borrow_mut().content_mut() = b"line-2-of-a-rewrite\nline-3\n".to_vec();
        world.scan();
        world.examine();
        world.go_round(30);
        assert_eq!(world.messages(), ["line-1", "line-2-of-a-rewrite", "line-3"]);
        assert_eq!(world.num_lost(), 0, "closed: {is_closed}");
    }
}

#[test]
fn what_was_examined_and_truncated_before_it_was_read_is_counted_as_lost() {
    let mut world = World::calm(LINES);
    let handle = world.live("line-1\n");
    world.see();
    world.go_round(5);
    world.append_to(&handle, "line-2\n");
    world.examine();
    *handle.borrow_mut().content_mut() = b"line-3-of-a-rewrite\nline-4\n".to_vec();
    world.go_round(30);
    assert_eq!(world.messages(), ["line-1", "line-3-of-a-rewrite", "line-4"]);
    assert_eq!(world.num_lost(), "line-2\n".len() as u64);
}

#[test]
fn a_deleted_file_that_is_truncated_does_not_hide_the_one_at_its_path() {
    let mut world = World::calm(LINES);
    let deleted = world.live("line-1\n");
    world.see();
    world.files.delete(Path::new(LIVE));
    let live = world.live("");
    world.scan();
    deleted.borrow_mut().content = b"line-2-of-a-rewrite\n".to_vec();
    world.go_round(4);
    assert_eq!(world.messages(), ["line-1", "line-2-of-a-rewrite"]);
    world.tell(&live, "line-3\n");
    world.turns();
    assert_eq!(world.messages(), ["line-1", "line-2-of-a-rewrite", "line-3"]);
}

/// Of an event that a rotation divides.
const BEGINNING: &str = "line-1\n more-1\n";

fn divided() -> World {
    let mut world = World::calm(SEVERAL);
    world.live(BEGINNING);
    world.see();
    world.rename_live("/logs/2.log.1");
    world
}

#[test]
fn an_event_goes_on_in_the_next_file() {
    let mut world = divided();
    world.live(" more-2\n");
    world.see();
    world.go_round(30);
    assert_eq!(world.messages(), ["line-1\n more-1\n more-2"]);
}

#[test]
fn an_event_does_not_go_on_behind_a_file_that_cannot_be_opened() {
    let mut world = divided();
    world.live(" more-2\n");
    world.rename_live("/logs/2.log.2");
    world.live(" other\n");
    world.files.deny(Some("/logs/2.log.2"));
    world.scan();
    world.files.deny(None);
    world.see();
    world.go_round(30);
    assert_eq!(world.messages(), [" more-2", " other", "line-1\n more-1"]);
}

#[test]
fn an_event_does_not_go_on_in_what_took_the_place_of_a_file_that_could_not_be_opened() {
    let mut world = divided();
    world.live(" more-2\n");
    world.files.deny(Some(LIVE));
    world.scan();
    world.files.deny(None);
    world.rename_live("/logs/2.gz");
    world.live(" other\n");
    world.see();
    world.go_round(30);
    assert_eq!(world.messages(), [" other", "line-1\n more-1"]);
}

#[test]
fn an_event_does_not_go_on_behind_a_copy_of_what_was_never_read() {
    let mut world = divided();
    let handle = world.live("");
    world.scan();
    world.files.create(Path::new("/logs/2.log.2"), b" more-2\n");
    world.see();
    world.append_to(&handle, " other\n");
    world.go_round(30);
    assert_eq!(world.messages(), [" more-2", " other", "line-1\n more-1"]);
}

#[test]
fn a_truncated_file_whose_last_event_went_on_elsewhere_is_let_go() {
    let mut world = divided();
    let begun = Rc::clone(&world.files.0.borrow().names[Path::new("/logs/2.log.1")]);
    world.live(" more-2\n");
    world.scan();
    let is_carried =
        |world: &World| world.tailer.iter().any(|t| t.rows().any(|source| source.rotation.carry.is_some()));
    while !is_carried(&world) {
        let now = world.now;
        world.tailer.iter_mut().for_each(|tailer| _ = tailer.turn(now, Duration::ZERO));
    }
    begun.borrow_mut().content = b"line-3\n".to_vec();
    world.go_round(30);
    assert_eq!(world.messages(), [" more-2", "line-3"]);
    assert!(world.tailer.iter().all(|tailer| tailer.rows().all(|source| source.is_done())));
}
