//! Which lines belong to the event before them.

use std::time::Duration;

use regex::bytes::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

/// How lines become events of several lines.
#[derive(Clone, Debug)]
pub struct Multiline {
    pub rule: Rule,
    /// An event that nothing was added to for so long is whole.
    pub timeout: Duration,
}

#[derive(Clone, Debug)]
pub enum Rule {
    /// A line that matches begins an event.
    Start(Regex),
    Preset(Preset),
}

/// Stack traces as the usual runtimes print them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Indented lines, `Caused by:`, `Suppressed:` and `... 12 more` go on.
    Java,
    /// A traceback with its last line, and the one that was raised while handling it.
    Python,
    /// A panic or a fatal error with its goroutines.
    Go,
    /// Indented lines go on.
    Ruby,
}

/// What was last seen of an event. It depends on the event's own lines only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    #[default]
    None,
    /// Inside a traceback or a panic.
    Inside,
    /// A traceback's last line came; another one may follow after a blank line.
    Ended,
}

impl Multiline {
    /// Whether `line` goes on with an event. `trace` is the event's, and is brought up to date if it does.
    pub fn continues(&self, trace: &mut Trace, line: &[u8]) -> bool {
        match &self.rule {
            Rule::Start(start) => !start.is_match(line),
            Rule::Preset(preset) => match preset.next(*trace, line) {
                Some(next) => {
                    *trace = next;
                    true
                }
                None => false,
            },
        }
    }

    /// Whether `line` reads like the rest of an event that began before. `trace` becomes that of the event it begins.
    pub fn begins(&self, trace: &mut Trace, line: &[u8]) -> bool {
        *trace = Trace::None;
        match &self.rule {
            Rule::Start(start) => start.is_match(line),
            Rule::Preset(preset) => {
                let is_rest = preset.next(Trace::None, line).is_some();
                *trace = preset.first(line);
                !is_rest
            }
        }
    }
}

fn is_indented(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

fn starts_with_any(line: &[u8], beginnings: &[&str]) -> bool {
    beginnings.iter().any(|beginning| line.starts_with(beginning.as_bytes()))
}

/// `main.run(0x1, {0x2, 0x3})`: a frame of a goroutine.
fn is_call(line: &[u8]) -> bool {
    let name = line.iter().position(|&b| b == b'(').unwrap_or(0);
    name > 0 && line.ends_with(b")") && !line[..name].iter().any(|b| b.is_ascii_whitespace())
        || line.ends_with(b"(...)")
}

impl Preset {
    fn first(self, line: &[u8]) -> Trace {
        let is_trace = match self {
            Self::Java | Self::Ruby => false,
            Self::Python => line.starts_with(b"Traceback (most recent call last)"),
            Self::Go => starts_with_any(line, &["panic: ", "fatal error: ", "http: panic serving"]),
        };
        if is_trace { Trace::Inside } else { Trace::None }
    }

    /// The event's trace after `line`, if the line belongs to it.
    fn next(self, trace: Trace, line: &[u8]) -> Option<Trace> {
        const CHAINED: [&str; 2] =
            ["During handling of the above exception", "The above exception was the direct cause"];
        const GOROUTINE: [&str; 6] =
            ["goroutine ", "panic: ", "[signal ", "created by ", "exit status ", "runtime stack:"];
        match (self, trace) {
            (Self::Java, _) => {
                let goes_on = is_indented(line) || starts_with_any(line, &["Caused by: ", "Suppressed: ", "... "]);
                goes_on.then_some(Trace::None)
            }
            (Self::Ruby, _) => is_indented(line).then_some(Trace::None),
            (Self::Python, Trace::Inside) if is_indented(line) => Some(Trace::Inside),
            (Self::Python, Trace::Inside) => Some(if line.is_empty() { Trace::Inside } else { Trace::Ended }),
            (Self::Python, Trace::Ended) if line.is_empty() || starts_with_any(line, &CHAINED) => Some(Trace::Ended),
            (Self::Python, Trace::Ended) if self.first(line) == Trace::Inside => Some(Trace::Inside),
            (Self::Python, _) => is_indented(line).then_some(trace),
            (Self::Go, Trace::Inside) if line.is_empty() || is_call(line) || starts_with_any(line, &GOROUTINE) => {
                Some(Trace::Inside)
            }
            (Self::Go, _) => is_indented(line).then_some(trace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that `text` is one event between two others.
    fn check(preset: Preset, text: &str) {
        let multiline = Multiline { rule: Rule::Preset(preset), timeout: Duration::from_secs(1) };
        let mut trace = Trace::None;
        let mut lines = text.lines();
        assert!(multiline.begins(&mut trace, lines.next().unwrap().as_bytes()), "{text}");
        for line in lines {
            assert!(multiline.continues(&mut trace, line.as_bytes()), "{preset:?} `{line}`");
        }
        assert!(!multiline.continues(&mut trace, b"2026-11-23 06:30:17 INFO next"), "{text}");
    }

    #[test]
    fn stack_traces_stay_together() {
        check(
            Preset::Java,
            "java.lang.IllegalStateException: no\n\tat a.B.c(B.java:3)\n\t... 3 more\nCaused by: java.io.IOException\n\tat x.Y.z(Y.java:1)",
        );
        check(Preset::Ruby, "a.rb:1:in `f': no (RuntimeError)\n\tfrom a.rb:4:in `<main>'");
        check(
            Preset::Python,
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\nValueError: no\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'x'",
        );
        check(
            Preset::Go,
            "panic: no [recovered]\n\tpanic: no\n\ngoroutine 1 [running]:\nmain.run(0x1, {0x2, 0x3})\n\t/src/main.go:7 +0x1d\nmain.main()\n\t/src/main.go:3 +0x2\nexit status 2",
        );
    }

    #[test]
    fn ordinary_lines_stay_apart() {
        for preset in [Preset::Java, Preset::Python, Preset::Go, Preset::Ruby] {
            let multiline = Multiline { rule: Rule::Preset(preset), timeout: Duration::from_secs(1) };
            let mut trace = Trace::None;
            assert!(multiline.begins(&mut trace, b"INFO (one)"));
            assert!(!multiline.continues(&mut trace, b"done(1)"), "{preset:?}");
            assert!(multiline.continues(&mut trace, b"  more"), "{preset:?}");
        }
    }

    #[test]
    fn a_line_that_matches_begins_an_event() {
        let multiline = Multiline { rule: Rule::Start(Regex::new(r"^\d{4}-").unwrap()), timeout: Duration::ZERO };
        let mut trace = Trace::None;
        assert!(multiline.begins(&mut trace, b"2026-x"));
        assert!(multiline.continues(&mut trace, b"y"));
        assert!(!multiline.continues(&mut trace, b"2026-"));
        assert!(!multiline.begins(&mut trace, b"rest"));
    }
}
