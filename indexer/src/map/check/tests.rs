//! Answers of Elasticsearch 8.19.7 for single values.

use millrace_common::json::Parser;
use proptest::prelude::*;

use super::date::{DateFormats, ParsedDate};
use super::number::{self, NumberType};
use super::*;
use crate::map::server::Behaviour;

fn with<T>(json: &str, ask: impl Fn(Value<'_, '_>) -> T) -> T {
    ask(Parser::default().parse(json.as_bytes()).expect("JSON"))
}

#[track_caller]
fn check(expected: bool, values: &[&str], ask: impl Fn(Value<'_, '_>) -> Fit) {
    for value in values {
        let fit = with(value, &ask);
        assert_eq!(fit == Fit::Fits, expected, "{value}: {fit:?}");
    }
}

fn number(value: Value<'_, '_>, number: NumberType, coerce: bool) -> Fit {
    number::check(value, number, coerce, Behaviour::default(), &mut None)
}

#[test]
fn integers_keep_to_their_range_as_tokens_and_as_strings() {
    let long = |v: Value<'_, '_>| number(v, NumberType::Long, true);
    check(true, &["0", "-1", "9223372036854775807", "1.9", "9223372036854775808.0", "1e2"], long);
    check(true, &[r#""12""#, r#""+5""#, r#""1e3""#, r#""1.5""#, r#""""#, r#""1e-50""#], long);
    check(false, &["9223372036854775808", "-9223372036854775809", "1e40", "18446744073709551616"], long);
    check(false, &[r#""x""#, r#"" 1""#, r#""NaN""#, r#""9223372036854775808""#, r#""0e50""#, "true"], long);
    let byte = |v: Value<'_, '_>| number(v, NumberType::Byte, true);
    check(true, &["127", "-128", "127.9", r#""127.9""#, r#"" 1 ""#], byte);
    check(false, &["128", "-129", r#""128""#, "2147483648"], byte);
    let short = |v: Value<'_, '_>| number(v, NumberType::Short, true);
    check(false, &[r#""32767.5""#, "32768"], short);
}

#[test]
fn coerce_off_refuses_strings_and_decimals() {
    let long = |v: Value<'_, '_>| number(v, NumberType::Long, false);
    check(true, &["1", "1.0", "1e2"], long);
    check(false, &["1.5", r#""1""#, r#""""#], long);
    check(false, &[r#""1.5""#], |v| number(v, NumberType::Double, false));
}

#[test]
fn floats_must_be_finite_in_their_own_width() {
    check(true, &["65519", "-65519"], |v| number(v, NumberType::HalfFloat, true));
    check(false, &["65520", "1e5"], |v| number(v, NumberType::HalfFloat, true));
    check(true, &["3.4028235e38"], |v| number(v, NumberType::Float, true));
    check(false, &["3.5e38", r#""NaN""#, r#""Infinity""#], |v| number(v, NumberType::Float, true));
    check(true, &["3.5e38", r#""1f""#, r#"" .5 ""#], |v| number(v, NumberType::Double, true));
    check(false, &["1e400", r#""x""#], |v| number(v, NumberType::Double, true));
}

#[test]
fn booleans_and_addresses() {
    check(true, &["true", r#""false""#, r#""""#], boolean);
    check(false, &["1", r#""True""#, r#"" ""#], boolean);
    check(true, &[r#""1.2.3.4""#, r#""::1""#, r#""::ffff:1.2.3.4""#, r#""1:2:3:4:5:6:7::""#], ip);
    check(false, &[r#""256.1.1.1""#, r#""01.2.3.4""#, r#""1.2.3""#, "1", r#""""#], ip);
}

#[test]
fn dates_of_the_default_format() {
    let formats = DateFormats::parse(DateFormats::DEFAULT, Behaviour::default());
    let date = |v: Value<'_, '_>| formats.check(v, false);
    check(
        true,
        &[
            r#""2026-11-23T06:30:17.123Z""#,
            r#""2026-11-23T06:30Z""#,
            r#""2026-11-23T06:30:17,5+0100""#,
            r#""2026-11-23T06:30:17.123456789+01:00""#,
            r#""2026""#,
            r#""2026-11""#,
            r#""2026-11-23""#,
            r#""2026-11-23T""#,
            "1604948142953",
            r#""1604948142953""#,
        ],
        date,
    );
    check(
        false,
        &[
            r#""2026-02-30""#,
            r#""2026-1-1""#,
            r#""2026-11-23 06:30:17""#,
            r#""2026-11-23T24:00:00Z""#,
            r#""2026-11-23T06:30:60Z""#,
            r#""2026-11-23Z""#,
            r#""2026-11-23T06:30:17.Z""#,
            r#""""#,
            "true",
            "1.6e12",
        ],
        date,
    );
    // Elasticsearch takes these; they cannot be meant.
    for value in ["1604948142953141464", r#""2300-01-01""#, r#""1960-01-01""#] {
        assert_eq!(with(value, date), Fit::Implausible(Misfit::DateOutOfRange), "{value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn times_of_the_usual_form_are_judged_as_any_other(
        year in 1960..2300_u32,
        (month, day) in (0..14_u32, prop_oneof![0..34_u32, 28..32_u32]),
        (hour, minute, second) in (0..26_u32, 0..62_u32, 0..62_u32),
        centiseconds in 0..100_u32,
        odd in 0..60_u32,
        at: prop::sample::Index,
        other in " \\PC|[0-9TZ:-]",
    ) {
        let mut text = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{centiseconds:02}0Z");
        if odd < 20 {
            let at = at.index(text.len());
            text.replace_range(at..=at, &other);
        }
        let json = serde_json::to_string(&text).unwrap();
        for format in [DateFormats::DEFAULT, DateFormats::DEFAULT_NANOS, "strict_date_time", "strict_date_hour", "epoch_millis"] {
            let formats = DateFormats::parse(format, Behaviour::default());
            let fits = with(&json, |value| formats.check(value, false) == Fit::Fits);
            let last_nanos = i64::MAX / 1_000_000_000;
            let expected = matches!(formats.parse_text(&text), ParsedDate::At(at) if (0..last_nanos).contains(&at.seconds));
            prop_assert_eq!(fits, expected, "{} as {}", text, format);
        }
    }

    #[test]
    fn decimals_of_few_digits_are_finite(text in "-?(0|[1-9][0-9]{0,40})([.][0-9]{1,5})?([eE][0-9]{1,3})?") {
        for (of, is_finite) in [
            (NumberType::Double, text.parse::<f64>().unwrap().is_finite()),
            (NumberType::Float, text.parse::<f64>().unwrap().abs() <= f64::from(f32::MAX)),
        ] {
            let fits = with(&text, |value| number(value, of, true) == Fit::Fits);
            prop_assert_eq!(fits, is_finite, "{} as {:?}", text, of);
        }
    }
}

#[test]
fn nanosecond_dates_end_in_2262() {
    let formats = DateFormats::parse(DateFormats::DEFAULT_NANOS, Behaviour::default());
    let date = |v: Value<'_, '_>| formats.check(v, true);
    check(true, &[r#""2262-04-11T23:47:16.854775807Z""#, "1604948142953"], date);
    check(false, &[r#""2262-04-11T23:47:16.854775808Z""#, r#""1969-12-31""#, "1604948142953141464"], date);
}

#[test]
fn java_patterns_and_named_formats() {
    let check = |format: &str, fits: &[&str], not: &[&str]| {
        let formats = DateFormats::parse(format, Behaviour::default());
        for (texts, expected) in [(fits, true), (not, false)] {
            for text in texts {
                let fit = with(&format!("\"{text}\""), |v| formats.check(v, false));
                assert_eq!(fit == Fit::Fits, expected, "{format}: {text}: {fit:?}");
            }
        }
    };
    check(
        "yyyy-MM-dd HH:mm:ss",
        &["2026-11-23 06:30:17"],
        &["2026-11-23T06:30:17", "2026-11-23 6:30:17", "2026-02-30 06:30:17"],
    );
    check(
        "dd/MMM/yyyy:HH:mm:ss Z",
        &["23/Nov/2026:06:30:17 +0000"],
        &["23/nov/2026:06:30:17 +0000", "23/Nov/2026:06:30:17"],
    );
    // Three times X in a pattern is an offset with a colon, or Z (java.time.format.DateTimeFormatter).
    check(
        "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        &["2026-11-23T06:30:17.123Z", "2026-11-23T06:30:17.123+01:00"],
        &["2026-11-23T06:30:17.12Z"],
    );
    check("yyyyMMddHHmmss", &["20261123063017"], &["2026112306301"]);
    check("yyyy-MM-dd HH:mm:ss[.SSS]", &["2026-11-23 06:30:17", "2026-11-23 06:30:17.123"], &["2026-11-23 06:30:17.1"]);
    check("EEE MMM d HH:mm:ss yyyy", &["Mon Nov 23 06:30:17 2026"], &["Tue Nov 23 06:30:17 2026"]);
    check("hh:mm a dd.MM.yyyy", &["06:30 PM 23.11.2026"], &["18:30 PM 23.11.2026"]);
    check("epoch_second", &["1604948142", "1.5"], &["x", "1e9", "-0.0"]);
    check(
        "strict_date_time",
        &["2026-11-23T06:30:17.123Z", "2026-11-23T06:30:17+0100"],
        &["2026-11-23T06:30:17,5Z", "2026-11-23T06:30:17.123"],
    );
    check("strict_date", &["2026-02-30", "2026-13-01", "2026-00-01"], &["2026-1-1", "2026-11", "2026-11-23T"]);
    check("strict_date_optional_time_nanos", &["2026", "2026-11-23", "2026-11-23T06:30:17,5"], &["2026-11-23T06:30"]);
    check("strict_year_month_day", &["2026", "2026-11", "2026-11-23"], &["2026-02-30", "2026-11-23T06"]);
    check("yyyy/MM/dd||epoch_millis", &["2026/11/23", "5"], &["2026-11-23"]);
    let unknown = DateFormats::parse("basic_week_date||YYYY-ww", Behaviour::default());
    assert_eq!(with(r#""2026W471""#, |v| unknown.check(v, false)), Fit::Unsure);
}
