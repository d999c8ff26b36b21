//! The settings of how lines are read.

use std::error::Error;

use millrace_common::config::Faults;

use super::raw::{RawInput, RawPattern};
use crate::encode::event_time::{EventTime, TimeError};
use crate::encode::logfmt::Logfmt;
use crate::encode::pattern::{Pattern, PatternError, TIME_FIELD};
use crate::encode::{Content, Format};

/// Checks what `input` says of how its lines are read. `place` is the path of the input.
pub(super) fn check(place: &str, format: Format, input: &RawInput, faults: &mut Faults) -> Content {
    let at = |key: &str| format!("{place}.{key}");
    let is_typed = matches!(format, Format::Logfmt | Format::Pattern);
    let unused = [
        ("pattern", input.pattern.is_some() && format != Format::Pattern, "`pattern` as format"),
        ("types", !input.types.is_empty() && !is_typed, "`logfmt` or `pattern` as format"),
        ("timestamp", input.timestamp.is_some() && !is_typed, "`logfmt` or `pattern` as format"),
    ];
    for (key, _, formats) in unused.iter().filter(|(_, is_unused, _)| *is_unused) {
        faults.at(&at(key)).add("is not used by this format", format!("set {formats}, or leave it out"));
    }
    match format {
        Format::Text => Content::Text,
        Format::Json => Content::Json,
        Format::Logfmt => {
            let time = check_time(place, input, &Logfmt::TIME_FIELDS, faults);
            Content::Logfmt(Logfmt::new(input.types.clone(), time))
        }
        Format::Pattern => {
            let time = check_time(place, input, &[TIME_FIELD], faults);
            let Some(raw) = &input.pattern else {
                let key = if input.content.is_some() { "content" } else { "format" };
                faults.at(&at(key)).add("`pattern` needs one", "add pattern: { grok: … } or pattern: { regex: … }");
                return Content::Text;
            };
            check_pattern(place, raw, input, time, faults)
                .map_or(Content::Text, |read| Content::Pattern(Box::new(read)))
        }
    }
}

fn check_time(place: &str, input: &RawInput, defaults: &[&str], faults: &mut Faults) -> EventTime {
    let Some(raw) = &input.timestamp else { return EventTime::of_fields(defaults) };
    let field = raw.field.as_deref();
    let fields = field.as_slice();
    let fields = if fields.is_empty() { defaults } else { fields };
    EventTime::new(fields, raw.format.as_deref(), raw.zone.as_deref()).unwrap_or_else(|fault| {
        let (key, remedy) = match fault {
            TimeError::Format { .. } => ("format", "write it as for strptime, for example %d/%b/%Y:%H:%M:%S %z"),
            TimeError::NoDay { .. } => ("format", "name the month and its day, for example with %Y-%m-%d"),
            TimeError::Zone { .. } => ("zone", "write an offset such as +09:00, or a name such as Asia/Seoul"),
        };
        faults.at(&format!("{place}.timestamp.{key}")).add(cause_of(&fault), remedy);
        EventTime::default()
    })
}

fn check_pattern(
    place: &str,
    raw: &RawPattern,
    input: &RawInput,
    time: EventTime,
    faults: &mut Faults,
) -> Option<Pattern> {
    let (key, made) = match (&raw.grok, &raw.regex) {
        (Some(grok), None) => ("grok", Pattern::of_grok(grok, &raw.definitions, &input.types, time)),
        (None, Some(regex)) => ("regex", Pattern::of_regex(regex, &input.types, time)),
        _ => {
            faults.at(&format!("{place}.pattern")).add("needs one of `grok` and `regex`", "name exactly one");
            return None;
        }
    };
    match made {
        Ok(pattern) => {
            let field = input.timestamp.as_ref().and_then(|time| time.field.as_deref());
            if let Some(field) = field.filter(|field| !pattern.has_field(field)) {
                let what = PatternError::Unknown(field.to_owned()).to_string();
                faults.at(&format!("{place}.timestamp.field")).add(what, "name a field that it captures");
            }
            Some(pattern)
        }
        Err(fault) => {
            let (path, remedy) = match &fault {
                PatternError::Unknown(name) => (format!("types.{name}"), "name a field that it captures"),
                PatternError::NoField => {
                    (format!("pattern.{key}"), "name what it captures: %{WORD:field} or (?P<field>…)")
                }
                PatternError::Empty(_) | PatternError::Conflict(_) => {
                    (format!("pattern.{key}"), "choose another field name")
                }
                PatternError::Grok(_) | PatternError::Regex(_) => (format!("pattern.{key}"), "correct the pattern"),
            };
            faults.at(&format!("{place}.{path}")).add(cause_of(&fault), remedy);
            None
        }
    }
}

/// An error with its causes, in one line.
fn cause_of(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        // The regex crate draws the expression above the cause, which is the last line.
        let said = error.to_string();
        let said = said.lines().last().unwrap_or_default().trim();
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(said.strip_prefix("error: ").unwrap_or(said));
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(input: &str) -> Result<Content, String> {
        let text = format!(
            "inputs:\n  - paths: [/var/log/*.log]\n{input}\nkafka: {{brokers: ['k:9092'], topic: logs}}\ndata_dir: /d\n"
        );
        let loaded = config::load("shipper.yaml", &text, &[], &|_| None);
        loaded.map(|config| config.inputs[0].content.clone()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn formats_are_read_with_what_they_need() {
        for (input, is_right) in [
            ("", Content::is_text as fn(&Content) -> bool),
            ("    format: logfmt\n    types: {status: integer, a.b: float}", |content| {
                matches!(content, Content::Logfmt(_))
            }),
            ("    format: pattern\n    pattern: {grok: '%{COMBINEDAPACHELOG}'}", |content| {
                matches!(content, Content::Pattern(_))
            }),
            ("    format: cri\n    content: logfmt\n    types: {n: integer}", |content| {
                matches!(content, Content::Logfmt(_))
            }),
            (
                "    format: pattern\n    pattern: {regex: '(?P<t>\\S+) (?P<n>\\d+)'}\n    types: {n: integer}\n    timestamp: {field: t, format: '%Y/%m/%d', zone: Asia/Seoul}",
                |content| matches!(content, Content::Pattern(_)),
            ),
        ] {
            assert!(is_right(&load(input).unwrap()), "{input}");
        }
    }

    #[test]
    fn bad_patterns_and_times_are_refused_with_place_and_cause() {
        for (input, place, cause) in [
            ("    format: pattern", "3:13", "needs one"),
            ("    format: docker\n    content: pattern", "4:14", "needs one"),
            ("    format: pattern\n    pattern: {}", "4:5", "one of `grok` and `regex`"),
            ("    format: pattern\n    pattern: {grok: a, regex: b}", "4:5", "one of `grok` and `regex`"),
            ("    format: pattern\n    pattern: {regex: '(?P<a>x'}", "4:22", "unclosed group"),
            ("    format: pattern\n    pattern: {regex: '(?P<a>x)(?!y)'}", "4:22", "look-around"),
            ("    format: pattern\n    pattern: {regex: 'x'}", "4:22", "captures no field"),
            ("    format: pattern\n    pattern: {grok: '%{NOPE:a}'}", "4:21", "`NOPE` is no name"),
            ("    format: pattern\n    pattern: {grok: '%{A:a}', definitions: {A: '%{A}'}}", "4:21", "contains itself"),
            (
                "    format: pattern\n    pattern: {grok: '%{INT:a}'}\n    types: {b: integer}",
                "5:16",
                "`b` is no field",
            ),
            (
                "    format: pattern\n    pattern: {grok: '%{INT:a}'}\n    timestamp: {field: b}",
                "5:24",
                "`b` is no field",
            ),
            ("    format: logfmt\n    timestamp: {format: '%H:%M'}", "4:25", "no day"),
            ("    format: logfmt\n    timestamp: {format: '%!'}", "4:25", "not a format of times"),
            ("    format: logfmt\n    timestamp: {zone: Mars}", "4:23", "not a time zone"),
            ("    format: logfmt\n    pattern: {grok: '%{INT:a}'}", "4:5", "not used"),
            ("    format: json\n    types: {a: integer}", "4:5", "not used"),
            ("    timestamp: {field: a}", "3:5", "not used"),
            ("    format: logfmt\n    types: {a: decimal}", "4:16", "decimal"),
            ("    path_fields: '(?P<a>'", "3:18", "unclosed group"),
            ("    path_fields: '(?P<log.offset>x)'", "3:18", "set by the shipper itself"),
            ("    path_fields: '(?P<a.b>x)'\n    fields: {a: 1}", "3:18", "an object in one place"),
        ] {
            let faults = load(input).unwrap_err();
            let found = faults.lines().any(|l| l.starts_with(&format!("shipper.yaml:{place}")) && l.contains(cause));
            assert!(found, "{place} {cause} in\n{faults}");
        }
    }
    #[test]
    fn files_of_a_container_runtime_tell_their_pod_unless_told_otherwise() {
        let path = "/var/log/pods/shop_checkout_1-2/app/0.log";
        for (input, num_fields, is_named) in [
            ("    format: text", 0, false),
            ("    format: cri", 4, false),
            ("    format: docker\n    kubernetes: false", 0, false),
            ("    format: text\n    kubernetes: true", 4, true),
            ("    format: cri\n    kubernetes: true", 4, true),
        ] {
            let text = format!(
                "inputs:\n  - paths: [/var/log/*.log]\n{input}\nkafka: {{brokers: ['k:9092'], topic: logs}}\ndata_dir: /d\n"
            );
            let fields = config::load("shipper.yaml", &text, &[], &|_| None).unwrap().inputs.remove(0).fields;
            assert_eq!((fields.at(path).len(), fields.fit("/other.log")), (num_fields, !is_named), "{input}");
        }
    }
}
