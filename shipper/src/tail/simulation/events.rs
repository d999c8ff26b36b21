//! What applications write when lines belong together, and what of it must stay together.

use std::time::Duration;

use super::random::Random;
use crate::frame::Framing;
use crate::frame::multiline::{Multiline, Rule};
use crate::frame::wrapping::{Stream, Wrapping};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each line is an event.
    Lines,
    /// Events of several lines.
    Several,
    /// A container's file: two streams, lines in parts.
    Parts,
    /// A container's file with events of several lines.
    SeveralParts,
}

impl Kind {
    /// Half of the schedules have plain lines.
    pub const ALL: [Self; 6] = [Self::Lines, Self::Several, Self::Lines, Self::Parts, Self::Lines, Self::SeveralParts];

    pub fn is_wrapped(self) -> bool {
        matches!(self, Self::Parts | Self::SeveralParts)
    }

    pub fn framing(self) -> Framing {
        let start = || regex::bytes::Regex::new("^line-").expect("a constant");
        let multiline = || Multiline { rule: Rule::Start(start()), timeout: Duration::from_secs(2) };
        Framing {
            wrapping: self.is_wrapped().then_some(Wrapping::Cri),
            multiline: matches!(self, Self::Several | Self::SeveralParts).then(multiline),
            max_bytes: 400,
            ..Framing::plain(encoding_rs::UTF_8)
        }
    }

    /// The pieces that an event is made of: each is written once and must arrive once.
    pub fn pieces_of_message(self, message: &str) -> Vec<String> {
        let pieces = message.split('\n').filter(|line| !line.is_empty());
        match self {
            Self::Lines => vec![message.to_owned()],
            Self::Several => pieces.map(str::to_owned).collect(),
            Self::Parts | Self::SeveralParts => {
                pieces.flat_map(|line| line.split_inclusive(';')).map(str::to_owned).collect()
            }
        }
    }

    pub fn pieces_of_file(self, text: &str) -> impl Iterator<Item = String> {
        text.lines().flat_map(move |line| {
            let content = if self.is_wrapped() { line.splitn(4, ' ').nth(3).unwrap_or_default() } else { line };
            self.pieces_of_message(content)
        })
    }

    /// Whether an event is of one piece: lines and parts of another event do not get into it.
    pub fn check_event(self, message: &str) -> Result<(), String> {
        if self == Self::Lines {
            return Ok(());
        }
        let of = |piece: &str| piece.split('-').nth(1).map(str::to_owned);
        let pieces = self.pieces_of_message(message);
        let mut events: Vec<_> = pieces.iter().filter(|piece| *piece != "end").map(|piece| of(piece)).collect();
        events.dedup();
        if events.len() > 1 { Err(format!("`{message}` is of several events")) } else { Ok(()) }
    }
}

/// What an application is in the middle of, by stream.
#[derive(Default)]
pub struct Writer {
    streams: [Option<Unfinished>; Stream::COUNT],
}

#[derive(Clone, Copy)]
struct Unfinished {
    event: u64,
    /// A line of it is cut.
    is_cut: bool,
}

impl Writer {
    /// The end of a line that is cut, if there is one.
    pub fn finish(&mut self, num_pieces: &mut u64, wall_ms: i64) -> Option<(String, String)> {
        let stream = Stream::ALL.into_iter().find(|s| self.streams[*s as usize].is_some_and(|u| u.is_cut))?;
        let event = self.streams[stream as usize].take()?.event;
        *num_pieces += 1;
        let piece = format!(" more-{event}-{num_pieces}-;");
        Some((container_line(wall_ms, stream, "F", &piece), piece))
    }

    /// One more line of the file: its bytes, and the piece that they hold.
    pub fn write(&mut self, kind: Kind, num_pieces: &mut u64, wall_ms: i64, random: &mut Random) -> (String, String) {
        *num_pieces += 1;
        let stream = if kind.is_wrapped() && random.chance(40) { Stream::Stderr } else { Stream::Stdout };
        let unfinished = &mut self.streams[stream as usize];
        let goes_on = unfinished.filter(|unfinished| unfinished.is_cut || (kind != Kind::Parts && random.chance(60)));
        let event = goes_on.map_or(*num_pieces, |unfinished| unfinished.event);
        // Lines of runtimes are far shorter than the largest event.
        let longest = if kind.is_wrapped() { 200 } else { 480 };
        let length = if random.chance(4) { random.below(longest) } else { random.below(20) };
        let fill: String = (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let word = if goes_on.is_some() { " more" } else { "line" };
        let piece = format!("{word}-{event}-{num_pieces}-{fill}");
        if !kind.is_wrapped() {
            *unfinished = Some(Unfinished { event, is_cut: false });
            return (format!("{piece}\n"), piece);
        }
        let is_cut = random.chance(35);
        *unfinished = Some(Unfinished { event, is_cut });
        let piece = format!("{piece};");
        (container_line(wall_ms, stream, if is_cut { "P" } else { "F" }, &piece), piece)
    }
}

fn container_line(wall_ms: i64, stream: Stream, tag: &str, piece: &str) -> String {
    let time = jiff::Timestamp::from_millisecond(wall_ms).expect("a time of this century");
    format!("{time:.3} {} {tag} {piece}\n", stream.name())
}
