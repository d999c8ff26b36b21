//! The settings as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use millrace_common::config::{ByteSize, HumanDuration, Percent};
use millrace_common::kafka::Options;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::encode::Format;
use crate::encode::typing::FieldType;
use crate::frame::multiline::Preset;

/// Settings of the shipper.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Files to tail.
    #[serde(default)]
    pub(super) inputs: Vec<RawInput>,
    pub(super) kafka: RawKafka,
    #[serde(default)]
    pub(super) limits: RawLimits,
    #[serde(default)]
    pub(super) files: RawFiles,
    #[serde(default)]
    pub(super) shutdown: RawShutdown,
    #[serde(default)]
    pub(super) host: RawHost,
    /// Whether the state of every file is told in the topic `millrace.sources`, from which `indexer status` and `indexer audit`
    /// judge the whole way. `off`: completeness and liveness are known on this machine only.
    #[serde(default)]
    pub(super) ledger: Ledger,
    /// How often the ledger says that the shipper lives. A file that is not read for three times as long is reported.
    #[serde(default = "default_heartbeat")]
    pub(super) heartbeat: HumanDuration,
    /// How long the ledger keeps what it says of a file that is finished.
    #[serde(default = "default_forget_after")]
    pub(super) forget_after: HumanDuration,
    /// Folder of the checkpoint. It must survive a restart.
    pub(super) data_dir: PathBuf,
    #[serde(default)]
    pub(super) admin: RawAdmin,
}

/// Files of one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInput {
    /// Name of the input, for status and logs.
    pub(super) id: Option<String>,
    /// Topic to produce to. Default: `kafka.topic`.
    pub(super) topic: Option<String>,
    /// Absolute patterns: `*` and `?` stay within a folder, `**` crosses folders.
    pub(super) paths: Vec<String>,
    /// Patterns of paths or names to leave out.
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    /// Folders that links may lead into, beside those that `paths` begin with (up to the first `*`). What other links lead to is
    /// not read. Default: none; where a path begins with `/var/log/containers` or `/var/log/pods`: `/var/log/pods` and
    /// `/var/lib/docker/containers`.
    #[serde(default)]
    pub(super) links_into: Vec<String>,
    #[serde(default)]
    pub(super) format: InputFormat,
    /// Of `cri` and `docker`: how the lines that the application wrote are read.
    pub(super) content: Option<Format>,
    /// Several lines that are one event.
    pub(super) multiline: Option<RawMultiline>,
    /// Regular expressions; with any, only events that match one of them are sent.
    #[serde(default)]
    pub(super) include_lines: Vec<String>,
    /// Regular expressions; events that match one of them are not sent.
    #[serde(default)]
    pub(super) exclude_lines: Vec<String>,
    /// What ends a line.
    #[serde(default)]
    pub(super) line_end: RawLineEnd,
    /// What a line looks like, for `pattern` as format or content.
    pub(super) pattern: Option<RawPattern>,
    /// Types of fields that `logfmt` or `pattern` reads, by dotted name; the others are strings.
    #[serde(default)]
    pub(super) types: BTreeMap<String, FieldType>,
    /// The time of an event that `logfmt` or `pattern` reads.
    pub(super) timestamp: Option<RawTimestamp>,
    /// Files last written longer ago are left alone, and counted. One that is written to again is read from its start.
    pub(super) ignore_older: Option<HumanDuration>,
    /// Character encoding, by a label of the WHATWG standard: `euc-kr`, `shift_jis`, `windows-1252`, … Records are UTF-8.
    pub(super) encoding: Option<String>,
    /// Fields to add to every record, by dotted name. They win over the line's own.
    #[serde(default)]
    pub(super) fields: BTreeMap<String, FieldValue>,
    /// Regular expression of a whole path, whose named groups are fields of every record of that file. They win over `fields`.
    pub(super) path_fields: Option<String>,
    /// Fields of namespace, pod and container from the paths of a kubelet: `/var/log/pods` and `/var/log/containers`. Default:
    /// with `cri` and `docker`, where a path fits.
    pub(super) kubernetes: Option<bool>,
    /// Whether `fields` and what the path tells win over fields of the line.
    #[serde(default = "yes")]
    pub(super) overwrite: bool,
}

/// How the lines of a file are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputFormat {
    /// The line is the message.
    #[default]
    Text,
    /// The line is a JSON object whose fields stand at the top level; any other line is shipped as text.
    Json,
    /// The line is `key=value` pairs, which become fields; any other line is shipped as text.
    Logfmt,
    /// The line is what `pattern` says; any other line is shipped as text.
    Pattern,
    /// Files of containerd and CRI-O; `content` tells what the application wrote.
    Cri,
    /// Files of Docker's `json-file` driver; `content` tells what the application wrote.
    Docker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLineEnd {
    /// A line feed, with or without a carriage return before it.
    #[default]
    Lf,
    /// A carriage return alone.
    Cr,
}

/// Either `start` or `preset`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMultiline {
    /// Regular expression: a line that matches begins an event, any other goes on with the one before.
    pub(super) start: Option<String>,
    /// Stack traces of a language.
    pub(super) preset: Option<Preset>,
    /// An event that nothing was added to for so long is sent. Default: 2s.
    pub(super) timeout: Option<HumanDuration>,
    /// Bytes of the file that an event spans at most; what follows is an event of its own, flagged `split`. Default: 512KiB.
    pub(super) max_bytes: Option<ByteSize>,
}

/// What a line looks like: one of `grok` and `regex`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPattern {
    /// For example `%{COMBINEDAPACHELOG}`, or `%{IP:client.ip} %{NUMBER:seconds:float}`.
    pub(super) grok: Option<String>,
    /// Expressions to use in `grok` by name, besides those built in.
    #[serde(default)]
    pub(super) definitions: BTreeMap<String, String>,
    /// Regular expression whose named groups are fields: `(?P<http.status>[0-9]+)`.
    pub(super) regex: Option<String>,
}

/// Which field tells the time of an event, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTimestamp {
    /// Default: `timestamp` of a pattern, `ts` or `time` of logfmt.
    pub(super) field: Option<String>,
    /// As for `strptime`, for example `%d/%b/%Y:%H:%M:%S %z`. Default: ISO 8601, an epoch, or the times of access logs and syslog.
    pub(super) format: Option<String>,
    /// Of times that tell none: `+09:00` or `Asia/Seoul`. Default: UTC.
    pub(super) zone: Option<String>,
}

/// A constant in `fields`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum FieldValue {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<String>),
    /// `service: {name: x}` is the same as `service.name: x`.
    Object(BTreeMap<String, FieldValue>),
}

impl FieldValue {
    pub(super) fn flatten(&self, path: &str, out: &mut Vec<(String, serde_json::Value)>) {
        let value = match self {
            Self::Bool(value) => (*value).into(),
            Self::Integer(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(value) => value.as_str().into(),
            Self::List(values) => values.clone().into(),
            Self::Object(members) => {
                for (name, member) in members {
                    member.flatten(&format!("{path}.{name}"), out);
                }
                return;
            }
        };
        out.push((path.to_owned(), value));
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKafka {
    /// Bootstrap servers, `host:port`.
    pub(super) brokers: Vec<String>,
    /// Topic of the inputs that name none of their own.
    pub(super) topic: Option<String>,
    /// librdkafka options by name. Those that would break delivery are refused. `sasl.oauthbearer.token_file` names a file with a token.
    #[serde(default)]
    pub(super) options: Options,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    /// Memory of the whole process. A sixth of it holds records on their way.
    pub(super) memory: ByteSize,
    /// Largest record. What becomes of a longer line says `on_oversize`.
    pub(super) max_record: ByteSize,
    pub(super) on_oversize: OnOversize,
    /// Files open at the same time. Default: what the system allows the process, less what it needs itself, 4096 at most.
    pub(super) open_files: Option<u32>,
    pub(super) hold_deleted: RawHold,
}

/// How far files that were deleted, or renamed out of the patterns, are kept open until they are read to their end. Past
/// one of the limits the oldest is given up, counted and logged.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHold {
    pub(super) time: HumanDuration,
    /// Bytes of deleted files that are not yet acknowledged.
    pub(super) bytes: ByteSize,
    /// Share of the disk that must stay free.
    pub(super) min_free: Percent,
}

impl Default for RawHold {
    fn default() -> Self {
        Self {
            time: HumanDuration::new(Duration::from_secs(3600)),
            bytes: ByteSize::new(1 << 30),
            min_free: Percent::new(10.0),
        }
    }
}

/// What becomes of an event whose record would be too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOversize {
    /// Its message is cut and flagged.
    #[default]
    Truncate,
    /// It is given up, counted and logged with its path and range.
    Drop,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize::new(32 << 20),
            max_record: ByteSize::new(900 << 10),
            on_oversize: OnOversize::default(),
            open_files: None,
            hold_deleted: RawHold::default(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFiles {
    /// How often all patterns are walked, besides when the kernel tells of a change.
    pub(super) rescan: HumanDuration,
    /// How often the checkpoint is saved while positions move.
    pub(super) checkpoint: HumanDuration,
    /// Age at which an unterminated last line is sent (text only).
    pub(super) partial_after: HumanDuration,
    /// How long a renamed or deleted file must be quiet before its last line is sent and it is let go.
    pub(super) rotate_wait: HumanDuration,
    /// How long a file renamed out of the patterns is kept open without growing.
    pub(super) close_unlisted: HumanDuration,
    /// How long a file that is read is kept open without growing. It is opened again when it grows.
    pub(super) close_idle: HumanDuration,
}

impl Default for RawFiles {
    fn default() -> Self {
        let seconds = |s| HumanDuration::new(Duration::from_secs(s));
        Self {
            rescan: seconds(10),
            checkpoint: seconds(1),
            partial_after: seconds(300),
            rotate_wait: seconds(5),
            close_unlisted: seconds(300),
            close_idle: seconds(300),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ledger {
    #[default]
    On,
    Off,
}

fn default_heartbeat() -> HumanDuration {
    HumanDuration::new(Duration::from_secs(10))
}

fn default_forget_after() -> HumanDuration {
    HumanDuration::new(Duration::from_secs(7 * 86_400))
}

/// What to do with files on SIGTERM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    /// Read every file to its end.
    #[default]
    Eof,
    /// Stop reading; deliver what was read.
    None,
}

/// What to do with an unterminated last line on SIGTERM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Partial {
    /// Leave it for the next start.
    #[default]
    Hold,
    /// Send it as it is.
    Send,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawShutdown {
    pub(super) drain: Drain,
    pub(super) partial: Partial,
    pub(super) deadline: HumanDuration,
}

impl Default for RawShutdown {
    fn default() -> Self {
        let deadline = HumanDuration::new(Duration::from_secs(25));
        Self { drain: Drain::default(), partial: Partial::default(), deadline }
    }
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHost {
    /// Part of every record id. Default: machine id and host name, stored at first start. Set it to the node name or the pod UID
    /// where files outlive the container.
    pub(super) id: Option<String>,
    /// `host.name` of the records. Default: the host name.
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAdmin {
    /// Address of `/livez`, `/readyz`, `/metrics` and `/status`.
    pub(super) listen: String,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9640".to_owned() }
    }
}

fn yes() -> bool {
    true
}
