//! Arguments of `indexer dlq`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use millrace_common::config::HumanDuration;

use super::gather::Filter;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print one line per letter: time, reason, field, index, topic/partition/offset, id.
    ///
    /// A letter that was parked more than once is shown once. Control characters are printed escaped.
    List(ListArgs),
    /// Count letters by reason, field and error type.
    Top(TopArgs),
    /// Send letters back to the topics they came from.
    ///
    /// Each goes out with its original bytes and id, so that doing it again is harmless: what is in the index already is
    /// met as a duplicate. Letters are left in the dead letter topic; its retention removes them. Ends with 0 only if every
    /// record was acknowledged.
    Replay(ReplayArgs),
}

impl Command {
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Self::List(args) => &args.connection,
            Self::Top(args) => &args.connection,
            Self::Replay(args) => &args.connection,
        }
    }
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Stop after this many letters.
    #[arg(long, value_name = "NUMBER")]
    pub(super) limit: Option<u64>,
    /// Print the values too.
    #[arg(long)]
    pub(super) values: bool,
    /// One JSON object per line. Bytes that are not UTF-8 come as `value_base64`.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Print this many rows.
    #[arg(long, value_name = "NUMBER", default_value = "20")]
    pub(super) limit: usize,
    /// One JSON object per line.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Stop after this many letters.
    #[arg(long, value_name = "NUMBER")]
    pub(super) limit: Option<u64>,
    /// Tell what would be sent, and send nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Where the letters are. Flags replace what the file says.
#[derive(Debug, Args)]
pub struct Connection {
    /// Configuration file of `indexer run` (YAML).
    #[arg(short, long, value_name = "FILE", env = "INDEXER_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Kafka brokers to begin with.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', env = "INDEXER_BROKERS")]
    pub(super) brokers: Vec<String>,
    /// Topic of the dead letters [default: logs.dlq].
    #[arg(long, value_name = "TOPIC", env = "INDEXER_DEAD_LETTER_TOPIC")]
    pub(super) dead_letter_topic: Option<String>,
}

#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only letters with one of these reasons, such as `refused` or `not_json`.
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,
    /// Only letters about one of these fields, or about fields below them.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    field: Vec<String>,
    /// Only letters parked at this time or later: RFC 3339, or a duration back from now such as 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only letters parked before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

impl FilterArgs {
    /// `now_ms`: milliseconds since the epoch, from which durations count back.
    pub(super) fn resolve(&self, now_ms: i64) -> Filter {
        let resolve = |moment: &Moment| match moment {
            Moment::At(ms) => *ms,
            Moment::Ago(ms) => now_ms.saturating_sub(*ms),
        };
        Filter {
            reasons: self.reason.clone(),
            fields: self.field.clone(),
            since_ms: self.since.as_ref().map(resolve),
            until_ms: self.until.as_ref().map(resolve),
        }
    }
}

/// A time on the command line, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    At(i64),
    Ago(i64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(time.as_millisecond()));
        }
        let duration: HumanDuration = text.parse().map_err(|_| {
            format!("`{text}` is no time: write it as 2026-11-23T06:00:00Z, or as a duration back from now such as 2h")
        })?;
        i64::try_from(duration.duration().as_millis()).map(Self::Ago).map_err(|_| format!("`{text}` is too long ago"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_timestamp_or_a_duration_back_from_now() {
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Moment::At(1_000)));
        assert_eq!("1970-01-01T01:00:01.5+01:00".parse(), Ok(Moment::At(1_500)));
        assert_eq!("2h".parse(), Ok(Moment::Ago(7_200_000)));
        assert_eq!("1h30m".parse(), Ok(Moment::Ago(5_400_000)));
        for bad in ["", "yesterday", "2026-11-23", "12:00", "-2h"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_count_back_from_now() {
        let args = FilterArgs {
            reason: vec!["refused".into()],
            field: Vec::new(),
            since: Some(Moment::Ago(400)),
            until: Some(Moment::At(7)),
        };
        let filter = args.resolve(1_000);
        assert_eq!((filter.since_ms, filter.until_ms), (Some(600), Some(7)));
    }
}
