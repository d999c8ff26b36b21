//! Checked scalars of configuration: sizes, durations, shares.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not the scalar it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct UnitError {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl UnitError {
    fn new(text: &str, kind: &str, remedy: &str) -> Self {
        Self { what: format!("`{text}` is not {kind}"), remedy: remedy.to_owned() }
    }
}

/// A size in bytes: `900KiB`, `10MiB`, `1GB`, or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

const SIZE_REMEDY: &str =
    "write a whole number with B, KiB, MiB, GiB, TiB (1024) or kB, MB, GB, TB (1000), such as 10MiB";
const SIZES: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fault = || UnitError::new(text, "a size", SIZE_REMEDY);
        let (number, unit) = split_unit(text);
        let number: u64 = number.parse().map_err(|_| fault())?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(fault()),
        };
        let too_large = || UnitError::new(text, "a size", "write at most 16777215TiB");
        number.checked_mul(factor).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A span of time: `250ms`, `30s`, `5m`, `1h30m`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// A span of `duration`.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// The span as the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

const DURATION_REMEDY: &str = "write whole numbers with ms, s, m, h or d, such as 30s, 250ms or 1h30m";
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fault = || UnitError::new(text, "a duration", DURATION_REMEDY);
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut rest = text.trim();
        let mut millis: u64 = 0;
        if rest.is_empty() {
            return Err(fault());
        }
        while !rest.is_empty() {
            let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?);
            let after = after.trim_start();
            let (unit, next) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
            let (_, factor) = SPANS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
            let number: u64 = number.parse().map_err(|_| fault())?;
            millis = number.checked_mul(*factor).and_then(|part| millis.checked_add(part)).ok_or_else(fault)?;
            rest = next.trim_start();
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match SPANS
            .iter()
            .find(|(_, factor)| millis >= u128::from(*factor) && millis.is_multiple_of(u128::from(*factor)))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", millis / u128::from(*factor)),
            None => f.write_str("0s"),
        }
    }
}

/// A share between `0%` and `100%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Percent(f64);

impl Percent {
    /// A share of `value` hundredths, held between 0 and 100.
    pub const fn new(value: f64) -> Self {
        Self(value.clamp(0.0, 100.0))
    }

    /// The share in hundredths: 10.0 for `10%`.
    pub const fn value(self) -> f64 {
        self.0
    }

    /// This share of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        (whole as f64 * self.0 / 100.0) as u64
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fault = || UnitError::new(text, "a share", "write a number between 0% and 100%, such as 10%");
        let number: f64 = text.trim().strip_suffix('%').ok_or_else(fault)?.trim_end().parse().map_err(|_| fault())?;
        if (0.0..=100.0).contains(&number) { Ok(Self(number)) } else { Err(fault()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    (number, unit.trim_start())
}

/// Checks `text` against one of this module's schema formats; `None` for a format that is not ours.
pub(super) fn check_format(format: &str, text: &str) -> Option<Result<(), UnitError>> {
    match format {
        "byte-size" => Some(text.parse::<ByteSize>().map(drop)),
        "human-duration" => Some(text.parse::<HumanDuration>().map(drop)),
        "percent" => Some(text.parse::<Percent>().map(drop)),
        // Anything that fits one line, kept as it is written: `1.0` stays `1.0`.
        "as-written" => Some(Ok(())),
        _ => None,
    }
}

/// Serde and schema of a scalar that is written as text; `$types` are the JSON types an editor may offer.
macro_rules! textual {
    ($type:ident, $format:literal, $types:tt, $examples:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Textual(std::marker::PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": $types, "format": $format, "examples": $examples})
            }
        }
    };
}

textual!(ByteSize, "byte-size", ["string", "integer"], ["10MiB", "900KiB", "1GB"]);
textual!(HumanDuration, "human-duration", "string", ["30s", "5m", "1h30m", "250ms", "30d"]);
textual!(Percent, "percent", "string", ["10%"]);

struct Textual<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Textual<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text with a unit")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("10MiB", 10 << 20, "10MiB"),
            ("900KiB", 900 << 10, "900KiB"),
            ("1GB", 1_000_000_000, "1000000000"),
            ("4096", 4096, "4KiB"),
            ("12 mb", 12_000_000, "12000000"),
            ("0", 0, "0"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for text in ["", "MiB", "10M", "-1", "1.5GiB", "99999999999TiB", "ten"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_printed() {
        for (text, millis, printed) in [
            ("30s", 30_000, "30s"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("250ms", 250, "250ms"),
            ("30d", 2_592_000_000, "30d"),
            ("1h30m", 5_400_000, "90m"),
            ("0", 0, "0s"),
        ] {
            let span: HumanDuration = text.parse().unwrap();
            assert_eq!((span.duration().as_millis(), span.to_string().as_str()), (millis, printed), "{text}");
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for text in ["", "30", "s", "30 seconds", "-5s", "1.5h", "99999999999999999999d"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_stay_between_none_and_all() {
        assert_eq!("10%".parse::<Percent>().unwrap().of(250), 25);
        assert_eq!("12.5%".parse::<Percent>().unwrap().to_string(), "12.5%");
        for text in ["10", "101%", "-1%", "NaN%", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
