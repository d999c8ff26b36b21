//! What container runtimes write around a line. Both cut long lines at 16 KiB into parts.

use std::borrow::Cow;

use serde::Deserialize;

/// The file format of a container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// containerd, CRI-O: `TIME STREAM TAG CONTENT`, where the tag `P` stands for a part that goes on in a later line.
    /// Source: `k8s.io/cri-api`, kubelet's log parser.
    Cri,
    /// Docker's `json-file` driver: an object with `log`, `stream` and `time`; a part has no line end in `log`.
    Docker,
}

/// One line of a container's file, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwrapped<'a> {
    pub content: Cow<'a, [u8]>,
    /// RFC 3339.
    pub time: Cow<'a, str>,
    pub stream: Stream,
    /// The application's line ends here.
    pub is_whole: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    #[default]
    Stdout,
    Stderr,
}

impl Stream {
    pub const COUNT: usize = 2;
    pub const ALL: [Self; Self::COUNT] = [Self::Stdout, Self::Stderr];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name().as_bytes() == name)
    }
}

#[derive(Deserialize)]
struct DockerLine<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Wrapping {
    /// Takes a line without its end apart. `None` if it is not of this format.
    pub fn unwrap(self, line: &[u8]) -> Option<Unwrapped<'_>> {
        match self {
            Self::Cri => {
                let mut parts = line.splitn(4, |&b| b == b' ');
                let time = std::str::from_utf8(parts.next()?).ok().filter(|time| is_time(time))?;
                let stream = Stream::from_name(parts.next()?)?;
                let tag = parts.next()?.split(|&b| b == b':').next()?;
                let is_whole = match tag {
                    b"F" => true,
                    b"P" => false,
                    _ => return None,
                };
                // An empty line may end with its tag.
                let content = parts.next().unwrap_or_default();
                Some(Unwrapped { content: content.into(), time: time.into(), stream, is_whole })
            }
            Self::Docker => {
                let line: DockerLine<'_> = serde_json::from_slice(line).ok()?;
                let stream = Stream::from_name(line.stream.as_bytes())?;
                if !is_time(&line.time) {
                    return None;
                }
                let is_whole = line.log.ends_with('\n');
                let content = match line.log {
                    Cow::Borrowed(text) => Cow::Borrowed(strip_end(text).as_bytes()),
                    Cow::Owned(mut text) => {
                        text.truncate(strip_end(&text).len());
                        Cow::Owned(text.into_bytes())
                    }
                };
                Some(Unwrapped { content, time: line.time, stream, is_whole })
            }
        }
    }
}

fn strip_end(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(text) => text.strip_suffix('\r').unwrap_or(text),
        None => text,
    }
}

/// Looks like `2026-11-23T06:30:17…`: enough to tell the format from other lines.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[..4].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wrapping: Wrapping, line: &str, expected: Option<(&str, Stream, bool)>) {
        let found = wrapping.unwrap(line.as_bytes());
        let found = found.map(|u| (String::from_utf8(u.content.into_owned()).unwrap(), u.stream, u.is_whole));
        assert_eq!(found, expected.map(|(content, stream, is_whole)| (content.to_owned(), stream, is_whole)), "{line}");
    }

    const TIME: &str = "2016-10-06T00:17:09.669794202Z";

    #[test]
    fn cri_lines_are_taken_apart() {
        let check = |rest: &str, expected| check(Wrapping::Cri, &format!("{TIME} {rest}"), expected);
        check("stdout F a  b", Some(("a  b", Stream::Stdout, true)));
        check("stderr P part", Some(("part", Stream::Stderr, false)));
        check("stdout P:more F x", Some(("F x", Stream::Stdout, false)));
        check("stdout F ", Some(("", Stream::Stdout, true)));
        check("stdout F", Some(("", Stream::Stdout, true)));
        check("stdlog F x", None);
        check("stdout X x", None);
        super::tests::check(Wrapping::Cri, "plain text stdout F x", None);
    }

    #[test]
    fn docker_lines_are_taken_apart() {
        let check = |log: &str, expected| {
            check(Wrapping::Docker, &format!(r#"{{"log":"{log}","stream":"stderr","time":"{TIME}"}}"#), expected)
        };
        check(r"a\tb\n", Some(("a\tb", Stream::Stderr, true)));
        check(r"a\r\n", Some(("a", Stream::Stderr, true)));
        check("part", Some(("part", Stream::Stderr, false)));
        check(r"\n", Some(("", Stream::Stderr, true)));
        super::tests::check(Wrapping::Docker, "{\"log\":\"x\\n\"}", None);
        super::tests::check(Wrapping::Docker, "x", None);
    }
}
