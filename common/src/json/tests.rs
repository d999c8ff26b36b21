use super::text::plain_prefix;
use super::*;
use proptest::prelude::*;

fn parse_error(text: &str) -> SyntaxError {
    match Parser::default().parse(text.as_bytes()) {
        Ok(value) => panic!("`{text}` parsed as {:?}", value.kind()),
        Err(error) => error,
    }
}

/// Rebuilds the value through the index, so that it can be compared with another parser's.
fn rebuild(value: Value<'_, '_>) -> serde_json::Value {
    match value.kind() {
        Kind::Null => serde_json::Value::Null,
        Kind::Bool(b) => b.into(),
        Kind::Number => serde_json::from_str(value.raw()).unwrap(),
        Kind::String => value.as_str().unwrap().into(),
        Kind::Array => value.elements().map(rebuild).collect(),
        Kind::Object => value.members().map(|(k, v)| (k.name().into_owned(), rebuild(v))).collect(),
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_serde_json_on_valid_text(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let mut parser = Parser::default();
        let value = parser.parse(text.as_bytes()).unwrap();
        prop_assert_eq!(value.raw(), text.as_str());
        prop_assert_eq!(rebuild(value), json);
        prop_assert!(!value.has_duplicate_keys());
    }

    #[test]
    fn accepts_what_serde_json_accepts(text in r#"[\[\]{}",:0-9eE+\-.truefalsn\\ u/\t]{0,24}"#) {
        let ours = Parser::default().parse(text.as_bytes()).is_ok();
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text);
        prop_assert_eq!(ours, theirs.is_ok(), "{:?}", theirs.err());
    }

    #[test]
    fn mutations_of_valid_text_are_judged_as_serde_json_does(json in any_json(), at: prop::sample::Index, byte: u8) {
        let mut text = serde_json::to_vec(&json).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let ours = Parser::default().parse(&text).is_ok();
        let theirs = std::str::from_utf8(&text).is_ok_and(|t| serde_json::from_str::<serde::de::IgnoredAny>(t).is_ok());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn written_strings_read_back(text: String) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
        let mut parser = Parser::default();
        prop_assert_eq!(parser.parse(&out).unwrap().as_str().unwrap(), text);
    }

    #[test]
    fn plain_prefix_stops_at_the_first_special_byte(bytes: Vec<u8>) {
        let expected = bytes.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(bytes.len());
        prop_assert_eq!(plain_prefix(&bytes), expected);
    }

    #[test]
    fn finds_a_repeated_key(names in prop::collection::hash_set("[a-z]{1,3}", 1..40), pick: prop::sample::Index) {
        let names: Vec<_> = names.into_iter().collect();
        let twice = &names[pick.index(names.len())];
        let members: Vec<_> = names.iter().map(|n| format!("\"{n}\":0")).collect();
        let mut parser = Parser::default();
        let once = format!("{{\"o\":{{{}}}}}", members.join(","));
        prop_assert!(!parser.parse(once.as_bytes()).unwrap().has_duplicate_keys());
        let text = format!("{{\"o\":{{{},\"{twice}\":1}}}}", members.join(","));
        prop_assert!(parser.parse(text.as_bytes()).unwrap().has_duplicate_keys());
    }
}

/// Names that make a parser learn, forget and mistake: short, long, with escapes, prefixes of each other.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{0,3}",
        1 => "[a-c]{26,34}",
        1 => (0..600_u32).prop_map(|n| format!("name{n}")),
        1 => Just("a\\u0062".to_owned()),
        1 => Just("a\\\":".to_owned()),
    ]
}

/// Texts of objects and arrays in objects, with space at places, cut or not.
fn any_texts() -> impl Strategy<Value = Vec<String>> {
    let colon = prop_oneof![8 => Just(":"), 1 => Just(" :"), 1 => Just(": "), 1 => Just("")];
    let scalar =
        prop_oneof![Just("7"), Just("-1.5e7"), Just("\"7\""), Just("\"\\u0037\\n\""), Just("null"), Just("true")];
    let value = prop_oneof![3 => scalar, 1 => Just("{"), 1 => Just("[]"), 1 => Just("[1,{},[2]]"), 1 => Just("}")];
    let members = prop::collection::vec((any_name(), colon, value), 0..9);
    let text = (members, prop::option::weighted(0.1, any::<prop::sample::Index>())).prop_map(|(members, cut)| {
        let (mut text, mut num_open) = ("{".to_owned(), 1);
        for (name, colon, value) in members {
            if value == "}" && num_open > 1 {
                text.push('}');
                num_open -= 1;
                continue;
            }
            let comma = if text.ends_with('{') { "" } else { "," };
            let value = if value == "}" { "{}" } else { value };
            num_open += usize::from(value == "{");
            text += &format!("{comma}\"{name}\"{colon}{value}");
        }
        text += &"}".repeat(num_open);
        if let Some(cut) = cut {
            text.truncate(cut.index(text.len()));
        }
        text
    });
    prop::collection::vec(text, 1..40)
}

proptest! {
    #[test]
    fn what_a_parser_learned_changes_nothing(texts in any_texts()) {
        let mut parser = Parser::default();
        for text in &texts {
            let mut other = Parser::default();
            match (parser.parse(text.as_bytes()), other.parse(text.as_bytes())) {
                (Ok(value), Ok(expected)) => {
                    prop_assert_eq!(places(value), places(expected));
                    prop_assert_eq!(rebuild(value), rebuild(expected));
                }
                (value, expected) => prop_assert_eq!(value.err(), expected.err(), "{}", text),
            }
        }
    }

    #[test]
    fn equal_ids_are_of_equal_names(texts in any_texts()) {
        let mut known = std::collections::HashMap::new();
        let mut parsers = [Parser::default(), Parser::default()];
        for (n, text) in texts.iter().enumerate() {
            let Ok(value) = parsers[n % 2].parse(text.as_bytes()) else { continue };
            for key in keys(value) {
                if let Some(id) = key.id() {
                    prop_assert_eq!(known.entry(format!("{id:?}")).or_insert(key.raw()), &key.raw());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn in_texts_of_equal_shapes_equal_numbers_are_the_same_member(texts in any_texts()) {
        let mut known = std::collections::HashMap::new();
        let mut parsers = [Parser::default(), Parser::default()];
        // Twice, so that all shapes come again.
        for (n, text) in texts.iter().chain(&texts).enumerate() {
            let Ok(value) = parsers[n % 2].parse(text.as_bytes()) else { continue };
            if let Some(shape) = value.shape() {
                let skeleton = skeleton(value);
                prop_assert_eq!(known.entry(shape.0).or_insert_with(|| skeleton.clone()), &skeleton, "{}", text);
            }
        }
    }
}

/// Objects and arrays with the names in them; a `null` stands for any value that is neither.
fn any_arrangement() -> impl Strategy<Value = serde_json::Value> {
    let name = prop_oneof![4 => "[a-c]{0,3}", 1 => "[a-c]{12,29}"];
    Just(serde_json::Value::Null).prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            3 => prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// The arrangement as text, with the next of `values` for each `null`.
fn filled(arrangement: &serde_json::Value, values: &mut dyn Iterator<Item = &&str>) -> String {
    match arrangement {
        serde_json::Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("\"{name}\":{}", filled(value, values)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        serde_json::Value::Array(elements) => {
            format!("[{}]", elements.iter().map(|value| filled(value, values)).collect::<Vec<_>>().join(" ,"))
        }
        _ => values.next().copied().unwrap_or("null").to_owned(),
    }
}

proptest! {
    #[test]
    fn a_text_is_read_the_same_after_others_with_the_same_names(
        arrangements in prop::collection::vec(any_arrangement(), 1..4),
        texts in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<u64>(), prop::option::weighted(0.2, (any::<prop::sample::Index>(), 0..128_u8))),
            1..40,
        ),
    ) {
        const VALUES: [&str; 9] = ["null", "true", "false", "-0.5e+7", "12", "\"\"", "\"\\u00e4\\n\"", "\"of several words, \u{e4}\"", "x"];
        let mut parser = Parser::default();
        for (which, seed, damage) in texts {
            let mut seed = seed;
            let mut values = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                &VALUES[(seed >> 57) as usize % if damage.is_some() { 9 } else { 8 }]
            });
            let mut text = filled(which.get(&arrangements), &mut values).into_bytes();
            if let Some((at, byte)) = damage {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let mut other = Parser::default();
            match (parser.parse(&text), other.parse(&text)) {
                (Ok(value), Ok(expected)) => {
                    prop_assert_eq!(places(value), places(expected));
                    prop_assert_eq!(rebuild(value), rebuild(expected));
                    let names = |value| keys(value).into_iter().map(|key| key.raw().to_owned()).collect::<Vec<_>>();
                    prop_assert_eq!(names(value), names(expected));
                }
                (value, expected) => {
                    prop_assert_eq!(value.err(), expected.err(), "{}", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}

#[test]
fn a_text_is_only_compared_where_it_differs_in_values_alone() {
    let mut parser = Parser::default();
    let mut fits = |before: &str, text: &str| {
        // A name comes a second time before it is known where it stands.
        (0..2).for_each(|_| _ = parser.parse(before.as_bytes()));
        parser.templates.fit(text.as_bytes()).is_some()
    };
    let long = r#"{"a":1,"kubernetes":{"labels":{"app.kubernetes.io/name":"x"},"k":[{},2]}} "#;
    let other = r#"{"a":"\"","kubernetes":{"labels":{"app.kubernetes.io/name":-1e9},"k":[{},null]}} "#;
    assert!(fits(long, other));
    for (before, text) in [
        (long, other.trim_end().to_owned()),
        (long, other.to_owned() + "x"),
        (long, other.replace("name", "names")),
        (long, other.replace("{}", "[]")),
        (long, other.replace("{},", "{} ,")),
        (long, other.replace("-1e9", "-e9")),
        (long, other.replace("-1e9", "{}")),
        (long, other.replace("]}}", "]}")),
        (r#"{"a":1}"#, r#"{"a":1"#.to_owned()),
        (r#"{"a":1}"#, String::new()),
    ] {
        assert!(!fits(before, &text), "{text}");
    }
}

#[test]
fn templates_of_texts_that_take_turns_are_found_again() {
    // Without names: their numbers, and with them the places of shapes, depend on what other tests parse meanwhile.
    let (one, other) = ("[1,2]", "[1,[2]]");
    let mut parser = Parser::default();
    (0..8).for_each(|n| _ = parser.parse([one, other][n % 2].as_bytes()));
    for n in 0..8 {
        assert!(parser.templates.fit([one, other][n % 2].as_bytes()).is_some(), "{n}");
    }
    // Others that never come again take their places one by one, and no more room.
    for n in 0..2_000 {
        (0..2).for_each(|_| _ = parser.parse(format!("[[{}]]", "1,".repeat(n % 150) + "1").as_bytes()));
    }
    (0..40).for_each(|_| _ = parser.parse(one.as_bytes()));
    assert!(parser.templates.fit(one.as_bytes()).is_some());
}

/// Of every value its number, its name, and what it holds, but not what it is beside that.
fn skeleton(value: Value<'_, '_>) -> String {
    let members = |(key, value): (Key<'_, '_>, _)| format!("{:?}:{},", key.raw(), skeleton(value));
    let held = match value.kind() {
        Kind::Object => format!("{{{}}}", value.members().map(members).collect::<String>()),
        Kind::Array => format!("[{}]", value.elements().map(skeleton).collect::<Vec<_>>().join(",")),
        _ => String::new(),
    };
    assert_eq!(value.numbered(value.number()).span(), value.span());
    format!("{}{held}", value.number())
}

#[test]
fn a_shape_comes_again_whatever_the_values_are() {
    let mut parser = Parser::default();
    let mut shape = |text: &str| parser.parse(text.as_bytes()).unwrap().shape();
    let first = shape(r#"{"a":1,"b":{"c":[1,{}]}}"#);
    assert!(first.is_some());
    assert_eq!(shape(r#"{"a": "x", "b": {"c":[null, {}]} }"#), first);
    for other in [
        r#"{"b":{"c":[1,{}]},"a":1}"#,
        r#"{"a":1,"b":{"c":[1,[]]}}"#,
        r#"{"a":1,"b":{"c":[1,{},2]}}"#,
        r#"{"a":{},"b":1,"c":[1,{}]}"#,
        r#"{"a":1,"b":{"c":7}}"#,
        r#"{"a":1,"b":{"c":[1]}}"#,
        r#"[{"a":1,"b":{"c":[1,{}]}}]"#,
    ] {
        assert_ne!(shape(other), first, "{other}");
    }
    for [one, other] in [
        [r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#],
        [r#"[[1],1]"#, r#"[[1,1]]"#],
        [r#"{"a":{}}"#, r#"{"a":[]}"#],
        [r#"{"a":1,"b":{}}"#, r#"{"a":{"b":1}}"#],
    ] {
        assert_ne!(shape(one), shape(other), "{one} {other}");
    }
    // A name that is not known has no shape.
    assert_eq!(shape(r#"{"a" :1}"#), None);
    // Shapes that never come again do not push out the others at once, and take no more room than is set aside.
    (0..20_000).for_each(|n| _ = shape(&format!("[{}]", "1,".repeat(n % 900) + "1")));
    assert!((0..16).any(|_| shape(r#"{"a":1,"b":{"c":[1,{}]}}"#).is_some()));
}

/// Kinds and spans of all that an index holds.
fn places(value: Value<'_, '_>) -> Vec<(Kind, Range<usize>, u32, bool)> {
    value.nodes.iter().map(|n| (n.kind, n.start as usize..n.end as usize, n.next, n.has_escape)).collect()
}

fn keys<'p, 't>(value: Value<'p, 't>) -> Vec<Key<'p, 't>> {
    value.members().flat_map(|(key, value)| [vec![key], keys(value)].concat()).collect()
}

#[test]
fn names_are_known_again_wherever_they_come() {
    let mut parser = Parser::default();
    let mut ids = |text: &str| {
        let value = parser.parse(text.as_bytes()).unwrap();
        value.members().map(|(key, _)| key.id()).collect::<Vec<_>>()
    };
    let [a, b] = ids(r#"{"a":1,"b":2,"padding":"so that the text does not end"}"#)[..2] else { panic!("two names") };
    assert!(a.is_some() && b.is_some() && a != b);
    assert_eq!(ids(r#"{"b":1,"c":2,"a":3}"#), [b, ids(r#"{"c":0}"#)[0], a]);
    assert_eq!(ids(r#"{"a" :1}"#), [None]);
    assert_eq!(ids(r#"{"\u0061":1}"#), [None]);
    // Names that come once each push out those learned first, in time.
    for n in 0..20_000 {
        ids(&format!("{{\"once{n}\":1}}"));
    }
    assert_ne!(ids(r#"{"a":1}"#), [a]);
}

#[test]
fn numbers_keep_their_digits() {
    let text = r#"{"a":9223372036854775808,"b":1.0,"c":1e400,"d":-0}"#;
    let mut parser = Parser::default();
    let raw: Vec<_> = parser.parse(text.as_bytes()).unwrap().members().map(|(_, v)| v.raw()).collect();
    assert_eq!(raw, ["9223372036854775808", "1.0", "1e400", "-0"]);
}

#[test]
fn the_last_of_duplicate_keys_wins() {
    let mut parser = Parser::default();
    let value = parser.parse(br#"{"a":1,"b":2,"\u0061":3}"#).unwrap();
    assert_eq!(value.get("a").unwrap().raw(), "3");
    assert!(value.has_duplicate_keys());
    for (text, expected) in [
        (r#"{"a":1,"a":2}"#, true),
        (r#"{"":1,"":2}"#, true),
        (r#"{"abcdefgh":1,"abcdefgi":2,"abcdefgh":3}"#, true),
        (r#"{"abcdefgh":1,"abcdefgi":2}"#, false),
        (r#"{"a":1,"b":1,"ab":2}"#, false),
    ] {
        assert_eq!(Parser::default().parse(text.as_bytes()).unwrap().has_duplicate_keys(), expected, "{text}");
    }
}

#[test]
fn surrogates_decode_and_lone_ones_are_replaced() {
    let mut parser = Parser::default();
    let value = parser.parse(br#""\ud83d\ude00 \ud83d \ude00x\ud83d\u0041""#).unwrap();
    assert_eq!(value.as_str().unwrap(), "😀 \u{fffd} \u{fffd}x\u{fffd}A");
}

#[test]
fn errors_name_the_offset() {
    assert_eq!(parse_error("{\"a\":1,}"), SyntaxError::Expected { expected: "a key in double quotes", at: 7 });
    assert_eq!(parse_error("{\"a\" 1}"), SyntaxError::Expected { expected: "`:`", at: 5 });
    assert_eq!(parse_error("[1 2]"), SyntaxError::Expected { expected: "`,` or `]`", at: 3 });
    assert_eq!(parse_error("1 x"), SyntaxError::Expected { expected: "the end of the text", at: 2 });
    assert_eq!(parse_error("\"a\u{1}\""), SyntaxError::ControlCharacter { at: 2 });
    assert_eq!(Parser::default().parse(b"\"\xff\"").err(), Some(SyntaxError::InvalidUtf8 { at: 1 }));
}

#[test]
fn depth_is_limited_without_recursion() {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let mut parser = Parser::with_max_depth(20);
    assert!(parser.parse(nested(20).as_bytes()).is_ok());
    assert_eq!(parser.parse(nested(21).as_bytes()).err(), Some(SyntaxError::TooDeep { limit: 20, at: 20 }));
    let mut parser = Parser::with_max_depth(usize::MAX);
    assert!(parser.parse(nested(1_000_000).as_bytes()).is_ok());
}
