//! Checks how an input's bytes become events.

use std::time::Duration;

use encoding_rs::Encoding;
use millrace_common::config::Faults;
use regex::bytes::{Regex, RegexSet};

use super::raw::{InputFormat, RawInput, RawLineEnd, RawMultiline};
use crate::encode::Format;
use crate::frame::Framing;
use crate::frame::filter::Filter;
use crate::frame::lines::LineEnd;
use crate::frame::multiline::{Multiline, Rule};
use crate::frame::wrapping::Wrapping;

/// How the content of an event is read.
pub(super) fn content(input: &RawInput) -> Format {
    match input.format {
        InputFormat::Text => Format::Text,
        InputFormat::Json => Format::Json,
        InputFormat::Logfmt => Format::Logfmt,
        InputFormat::Pattern => Format::Pattern,
        InputFormat::Cri | InputFormat::Docker => input.content.unwrap_or_default(),
    }
}

pub(super) fn check(i: usize, input: &RawInput, memory: u64, faults: &mut Faults) -> Framing {
    let at = |key: &str| format!("inputs[{i}].{key}");
    let wrapping = match input.format {
        InputFormat::Cri => Some(Wrapping::Cri),
        InputFormat::Docker => Some(Wrapping::Docker),
        InputFormat::Text | InputFormat::Json | InputFormat::Logfmt | InputFormat::Pattern => None,
    };
    if wrapping.is_none() && input.content.is_some() {
        faults.at(&at("content")).add("is only for the formats cri and docker", "leave it out, or set `format`");
    }
    let encoding = check_encoding(&at("encoding"), input, faults);
    if wrapping.is_some() && encoding != encoding_rs::UTF_8 {
        faults.at(&at("encoding")).add("container runtimes write UTF-8", "leave it out");
    }
    // A sixth of the memory is for records on their way; the largest event is read in one piece, three times as long.
    let most = memory / 24;
    let largest = input.multiline.as_ref().and_then(|multiline| multiline.max_bytes);
    let max_bytes = largest.map_or(Framing::DEFAULT_MAX_BYTES.min(most), |size| size.bytes());
    if max_bytes > most {
        let remedy = "lower it, or raise limits.memory to 24 times as much";
        faults.at(&at("multiline.max_bytes")).add("is more than a 24th of limits.memory", remedy);
    } else if max_bytes < MIN_MAX_BYTES {
        faults.at(&at("multiline.max_bytes")).add("is too little", "allow at least 1KiB");
    }
    Framing {
        line_end: line_end(input, encoding, &at("line_end"), faults),
        encoding,
        wrapping,
        multiline: input.multiline.as_ref().and_then(|multiline| check_multiline(&at("multiline"), multiline, faults)),
        filter: check_filter(i, input, faults),
        max_bytes,
    }
}

const MIN_MAX_BYTES: u64 = 1024;

fn line_end(input: &RawInput, encoding: &'static Encoding, path: &str, faults: &mut Faults) -> LineEnd {
    let is_utf16 = encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE;
    match input.line_end {
        RawLineEnd::Cr if is_utf16 => {
            faults.at(path).add("is not there for UTF-16", "leave it out: a line feed ends a line");
            LineEnd::Cr
        }
        RawLineEnd::Cr => LineEnd::Cr,
        RawLineEnd::Lf if encoding == encoding_rs::UTF_16LE => LineEnd::Utf16Le,
        RawLineEnd::Lf if encoding == encoding_rs::UTF_16BE => LineEnd::Utf16Be,
        RawLineEnd::Lf => LineEnd::Lf,
    }
}

fn check_encoding(path: &str, input: &RawInput, faults: &mut Faults) -> &'static Encoding {
    let Some(label) = &input.encoding else { return encoding_rs::UTF_8 };
    Encoding::for_label_no_replacement(label.as_bytes()).unwrap_or_else(|| {
        let remedy =
            "use a label of the WHATWG standard, for example utf-8, utf-16le, euc-kr, shift_jis, gb18030, windows-1252";
        faults.at(path).add(format!("`{label}` is not an encoding"), remedy);
        encoding_rs::UTF_8
    })
}

fn check_multiline(path: &str, multiline: &RawMultiline, faults: &mut Faults) -> Option<Multiline> {
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
    let rule = match (&multiline.start, multiline.preset) {
        (Some(start), None) => match Regex::new(start) {
            Ok(start) => Rule::Start(start),
            Err(cause) => {
                bad_expression(&format!("{path}.start"), &cause, faults);
                return None;
            }
        },
        (None, Some(preset)) => Rule::Preset(preset),
        (Some(_), Some(_)) => {
            faults.at(path).add("has both `start` and `preset`", "leave one of them out");
            return None;
        }
        (None, None) => {
            let remedy = "give `start`, a regular expression that matches an event's first line, or `preset`";
            faults.at(path).add("does not say where an event begins", remedy);
            return None;
        }
    };
    let timeout = multiline.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.duration());
    Some(Multiline { rule, timeout })
}

fn check_filter(i: usize, input: &RawInput, faults: &mut Faults) -> Option<Filter> {
    if input.include_lines.is_empty() && input.exclude_lines.is_empty() {
        return None;
    }
    let mut set = |key: &str, expressions: &[String]| {
        for (n, expression) in expressions.iter().enumerate() {
            if let Err(cause) = Regex::new(expression) {
                bad_expression(&format!("inputs[{i}].{key}[{n}]"), &cause, faults);
            }
        }
        RegexSet::new(expressions).unwrap_or_default()
    };
    Some(Filter {
        include: set("include_lines", &input.include_lines),
        exclude: set("exclude_lines", &input.exclude_lines),
    })
}

pub(super) fn bad_expression(path: &str, cause: &regex::Error, faults: &mut Faults) {
    let text = cause.to_string();
    // The crate draws the expression with a mark below the fault; its last line says what is wrong.
    let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    faults.at(path).add(
        format!("is not a regular expression: {what}"),
        "correct it: Perl syntax without look-around and back references",
    );
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use crate::frame::Framing;

    fn input(settings: &str) -> Result<Framing, String> {
        let text = format!(
            "inputs: [{{paths: [/var/log/*.log], {settings}}}]\nkafka: {{brokers: ['k:9092'], topic: logs}}\ndata_dir: /d\n"
        );
        let loaded = load("shipper.yaml", &text, &[], &|_| None);
        loaded.map(|config| (*config.inputs[0].framing).clone()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn faults_name_their_place() {
        let fault = |settings: &str| input(settings).unwrap_err();
        assert!(
            fault("multiline: {start: '('}")
                .contains("inputs[0].multiline.start: is not a regular expression: unclosed")
        );
        assert!(fault("multiline: {}").contains("does not say where an event begins"));
        assert!(fault("multiline: {start: a, preset: go}").contains("both"));
        assert!(fault("multiline: {start: a, max_bytes: 4MiB}").contains("24th of limits.memory"));
        assert!(fault("exclude_lines: [a, '[']").contains("inputs[0].exclude_lines[1]"));
        assert!(fault("format: cri, encoding: euc-kr").contains("container runtimes write UTF-8"));
        assert!(fault("content: json").contains("only for the formats"));
        assert!(fault("multiline: {preset: cobol}").contains("cobol"));
    }

    #[test]
    fn what_needs_no_assembling_takes_the_fast_path() {
        assert!(input("format: json").unwrap().is_plain());
        assert!(input("encoding: euc-kr").unwrap().is_plain());
        for assembled in ["format: cri", "format: docker, content: json", "multiline: {preset: java}", "line_end: cr"] {
            assert!(!input(assembled).unwrap().is_plain(), "{assembled}");
        }
        assert!(!input("encoding: utf-16le").unwrap().is_plain());
        assert!(!input("exclude_lines: [DEBUG]").unwrap().is_plain());
    }
}
