//! Numbers as Elasticsearch parses them: JSON tokens through Jackson, strings through the JDK.

use millrace_common::json::{Kind, Value};

use super::{Fit, Misfit, text_of};
use crate::map::server::Behaviour;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::map) enum NumberType {
    Long,
    Integer,
    Short,
    Byte,
    Double,
    Float,
    HalfFloat,
}

impl NumberType {
    fn integer_range(self) -> Option<(i64, i64)> {
        match self {
            Self::Long => Some((i64::MIN, i64::MAX)),
            Self::Integer => Some((i32::MIN.into(), i32::MAX.into())),
            Self::Short => Some((i16::MIN.into(), i16::MAX.into())),
            Self::Byte => Some((i8::MIN.into(), i8::MAX.into())),
            Self::Double | Self::Float | Self::HalfFloat => None,
        }
    }
}

/// A number that the parser has looked at and nothing has read; see [`Behaviour::holds_numbers`].
pub(in crate::map) type Held = Option<f64>;

/// What the parser holds once it has looked at `value` for the type of a new field.
pub(in crate::map) fn looked_at(value: Value<'_, '_>, server: Behaviour) -> Held {
    let is_held = server.holds_numbers && value.kind() == Kind::Number && value.raw().parse::<i64>().is_err();
    if is_held { value.raw().parse().ok() } else { None }
}

pub(in crate::map) fn check(
    value: Value<'_, '_>,
    number: NumberType,
    coerce: bool,
    server: Behaviour,
    held: &mut Held,
) -> Fit {
    match value.kind() {
        Kind::Number => {
            let fit = token(value.raw(), number, coerce);
            beside_held(fit, value.raw(), (number, coerce), server, held)
        }
        Kind::String if !coerce => Fit::Refused(Misfit::StringForNumber),
        Kind::String => string(&text_of(value), number, server),
        _ => Fit::Refused(Misfit::NotANumber),
    }
}

/// The answer to a number that got `fit` by itself, when the parser may hold another.
fn beside_held(fit: Fit, raw: &str, (number, coerce): (NumberType, bool), server: Behaviour, held: &mut Held) -> Fit {
    let Some(n) = *held else { return fit };
    let (is_float, is_integer) = (number.integer_range().is_none(), is_integer(raw));
    let is_huge = is_integer && raw.parse::<i64>().is_err();
    let is_own = raw.parse() == Ok(n);
    let is_read_as_double = if is_float || !is_integer {
        true
    } else if is_huge {
        is_own
    } else {
        // Without `coerce` an integer is compared with itself as a double.
        !coerce && fit == Fit::Fits
    };
    if !is_read_as_double {
        return fit;
    }
    *held = None;
    let is_kept_for_it = !is_huge && (is_integer || (is_float && server.holds_for_decimals));
    if is_own || !is_kept_for_it {
        return fit;
    }
    if is_float && finite(Some(n), number) == Fit::Fits { Fit::Fits } else { Fit::Refused(Misfit::HeldNumber) }
}

fn is_integer(raw: &str) -> bool {
    !raw.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
}

fn token(raw: &str, number: NumberType, coerce: bool) -> Fit {
    let Some((min, max)) = number.integer_range() else {
        // Without an exponent, so few digits are finite: the largest `float` has 39.
        let is_finite = number != NumberType::HalfFloat && raw.len() <= 38 && !raw.contains(['e', 'E']);
        return if is_finite { Fit::Fits } else { finite(raw.parse().ok(), number) };
    };
    if is_integer(raw) {
        let fits = raw.parse::<i64>().is_ok_and(|n| (min..=max).contains(&n));
        return if fits { Fit::Fits } else { Fit::Refused(Misfit::OutOfRange) };
    }
    // A decimal token is read as double and truncated. The limits are compared as doubles, so that 2^63 passes for long.
    let Ok(n) = raw.parse::<f64>() else { return Fit::Unsure };
    let in_range = match number {
        NumberType::Long => (min as f64..=max as f64).contains(&n),
        _ => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n) && (min..=max).contains(&(n as i64)),
    };
    if !in_range {
        Fit::Refused(Misfit::OutOfRange)
    } else if !coerce && n.trunc() != n {
        Fit::Refused(Misfit::DecimalPart)
    } else {
        Fit::Fits
    }
}

fn string(text: &str, number: NumberType, server: Behaviour) -> Fit {
    if text.is_empty() {
        // Coerced to null.
        return Fit::Fits;
    }
    match number {
        NumberType::Long => long_string(text, server),
        NumberType::Integer | NumberType::Short | NumberType::Byte => small_string(text, number),
        NumberType::Double | NumberType::Float | NumberType::HalfFloat => match java_double(text) {
            Parsed::Number(n) => finite(Some(n), number),
            Parsed::No => Fit::Refused(Misfit::NotANumber),
            Parsed::Unsure => Fit::Unsure,
        },
    }
}

fn small_string(text: &str, number: NumberType) -> Fit {
    let n = match java_double(text) {
        Parsed::Number(n) => n,
        Parsed::No => return Fit::Refused(Misfit::NotANumber),
        Parsed::Unsure => return Fit::Unsure,
    };
    // Comparisons with NaN are false in Java too: it passes and becomes 0.
    let out = match number {
        NumberType::Short => n < f64::from(i16::MIN) || n > f64::from(i16::MAX),
        NumberType::Byte => n < f64::from(i32::MIN) || n > f64::from(i32::MAX) || i8::try_from(n as i64).is_err(),
        _ => n < f64::from(i32::MIN) || n > f64::from(i32::MAX),
    };
    if out { Fit::Refused(Misfit::OutOfRange) } else { Fit::Fits }
}

/// `Long.parseLong`, then `BigDecimal` cut to an integer.
fn long_string(text: &str, server: Behaviour) -> Fit {
    if text.parse::<i64>().is_ok() {
        return Fit::Fits;
    }
    if !text.is_ascii() {
        // Java reads the digits of all scripts.
        return if text.chars().any(char::is_numeric) { Fit::Unsure } else { Fit::Refused(Misfit::NotANumber) };
    }
    let Some(decimal) = Decimal::parse(text) else { return Fit::Refused(Misfit::NotANumber) };
    let Some(exponent) = decimal.exponent else { return Fit::Unsure };
    let scale = decimal.fraction.len() as i64 - exponent;
    let is_zero = [decimal.whole, decimal.fraction].iter().all(|digits| digits.bytes().all(|b| b == b'0'));
    if is_zero && server.has_any_zero {
        return Fit::Fits;
    }
    if scale < -19 {
        return Fit::Refused(Misfit::OutOfRange);
    }
    if scale > 19 {
        return Fit::Fits;
    }
    let digits: String = [decimal.whole, decimal.fraction].concat();
    let digits = digits.trim_start_matches('0');
    let kept = digits.len() as i64 - scale;
    if kept <= 0 {
        return Fit::Fits;
    }
    if kept > 38 {
        return Fit::Refused(Misfit::OutOfRange);
    }
    let whole: String = digits.chars().chain(std::iter::repeat('0')).take(kept as usize).collect();
    let magnitude = whole.parse::<i128>().unwrap_or(i128::MAX);
    let n = if decimal.is_negative { -magnitude } else { magnitude };
    if i64::try_from(n).is_ok() { Fit::Fits } else { Fit::Refused(Misfit::OutOfRange) }
}

struct Decimal<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    /// `None` when it does not fit.
    exponent: Option<i64>,
}

impl<'a> Decimal<'a> {
    /// `[+-]digits[.digits][e[+-]digits]`, with digits on at least one side of the point.
    fn parse(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !are_digits(whole) || !are_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let exponent = match exponent {
            None => Some(0),
            Some(e) => {
                let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
                if digits.is_empty() || !are_digits(digits) {
                    return None;
                }
                e.parse::<i32>().ok().map(i64::from)
            }
        };
        Some(Self { is_negative: text.starts_with('-'), whole, fraction, exponent })
    }
}

pub(in crate::map) enum Parsed {
    Number(f64),
    No,
    Unsure,
}

/// `Double.parseDouble`: outer control characters and spaces are trimmed, a suffix `f` or `d` is allowed.
pub(in crate::map) fn java_double(text: &str) -> Parsed {
    let text = text.trim_matches(|c| c <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        "NaN" => return Parsed::Number(f64::NAN),
        "Infinity" => return Parsed::Number(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        _ => {}
    }
    if unsigned.starts_with("0x") || unsigned.starts_with("0X") {
        return Parsed::Unsure;
    }
    let body = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    if Decimal::parse(body).is_none() {
        return Parsed::No;
    }
    body.parse().map_or(Parsed::Unsure, Parsed::Number)
}

/// Whether `Long.parseLong` takes `text`.
pub(in crate::map) fn is_java_long(text: &str) -> bool {
    text.parse::<i64>().is_ok()
}

fn finite(n: Option<f64>, number: NumberType) -> Fit {
    let Some(n) = n else { return Fit::Unsure };
    let is_finite = match number {
        // From 65520 on, rounding to a half float gives infinity.
        NumberType::HalfFloat => n.abs() < 65_520.0,
        NumberType::Float => (n as f32).is_finite(),
        _ => n.is_finite(),
    };
    if is_finite { Fit::Fits } else { Fit::Refused(Misfit::OutOfRange) }
}
