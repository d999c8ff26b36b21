//! Can a field take a value? The answers of Elasticsearch, type by type.

pub(super) mod date;
pub(super) mod date_pattern;
pub(super) mod number;

use std::borrow::Cow;

use millrace_common::json::{Kind, Value};

/// Longest term that Lucene indexes, in UTF-8 bytes.
pub(super) const MAX_TERM_BYTES: usize = 32_766;

/// Elasticsearch's answer for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// Kept in `_source`, not indexed: `ignore_malformed`, `ignore_above`.
    Ignored,
    Refused(Misfit),
    /// Elasticsearch takes it, but it cannot be meant: the decision is stricter than the prediction.
    Implausible(Misfit),
    /// Not known here: Elasticsearch judges.
    Unsure,
}

/// Why a value does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    NotANumber,
    OutOfRange,
    DecimalPart,
    StringForNumber,
    NotABoolean,
    NotADate,
    DateOutOfRange,
    NotAnIp,
    ImmenseTerm,
    ObjectForValue,
    ValueForObject,
    NulInKey,
    TooDeep,
    WriteToAlias,
    CopyOfObject,
    ScriptedField,
    DotsIntoNested,
    NestedInFlat,
    HeldNumber,
    NeverAnswered,
}

impl Misfit {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotANumber => "is not a number",
            Self::OutOfRange => "is out of range for its type",
            Self::DecimalPart => "has a decimal part and `coerce` is off",
            Self::StringForNumber => "is a string and `coerce` is off",
            Self::NotABoolean => "is not a boolean",
            Self::NotADate => "is not a date in any of the field's formats",
            Self::DateOutOfRange => "is a date outside 1970 to 2262",
            Self::NotAnIp => "is not an IP address",
            Self::ImmenseTerm => "is an immense term, longer than 32766 bytes",
            Self::ObjectForValue => "is an object where the mapping has a value",
            Self::ValueForObject => "is a value where the object mapping has an object",
            Self::NulInKey => "has a NUL character in a key",
            Self::TooDeep => "is nested deeper than `depth_limit`",
            Self::WriteToAlias => "is written to a field alias",
            Self::CopyOfObject => "is an object in a field with `copy_to`, or gets the copy of one",
            Self::NestedInFlat => "is an object that a template makes nested where `subobjects` is off",
            Self::HeldNumber => "gets a number of an earlier field, which Elasticsearch's parser holds",
            Self::NeverAnswered => {
                "is never answered: the server waits for a mapping that it does not make of dotted names like this"
            }
            Self::DotsIntoNested => "is reached with dots through a nested object",
            Self::ScriptedField => "is written to a field with a script",
        }
    }
}

/// The text of a scalar as Elasticsearch reads it: a string's content, else the value as written.
pub(super) fn text_of<'t>(value: Value<'_, 't>) -> Cow<'t, str> {
    value.as_str().unwrap_or(Cow::Borrowed(value.raw()))
}

/// `true`, `false` and their strings; an empty string counts as false.
pub(super) fn boolean(value: Value<'_, '_>) -> Fit {
    match value.kind() {
        Kind::Bool(_) => Fit::Fits,
        Kind::String => match text_of(value).as_ref() {
            "true" | "false" | "" => Fit::Fits,
            _ => Fit::Refused(Misfit::NotABoolean),
        },
        _ => Fit::Refused(Misfit::NotABoolean),
    }
}

pub(super) fn ip(value: Value<'_, '_>) -> Fit {
    let text = text_of(value);
    // Shorter and longer texts cannot be addresses; this keeps the parser off long texts.
    if (2..=45).contains(&text.len()) && text.parse::<std::net::IpAddr>().is_ok() {
        Fit::Fits
    } else if text.contains('%') {
        Fit::Unsure
    } else {
        Fit::Refused(Misfit::NotAnIp)
    }
}

/// How many UTF-16 units `text` has, which is how Java measures strings.
pub(super) fn utf16_units(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

/// Whether `text` is longer than `limit` UTF-16 units.
pub(super) fn is_longer(text: &str, limit: usize) -> bool {
    // Each unit takes one to three bytes.
    text.len() > limit && (text.len() > limit.saturating_mul(3) || utf16_units(text) > limit)
}

#[cfg(test)]
mod tests;
