//! One field against one value, multi-fields included.

use millrace_common::json::{Kind, Value};

use super::check::number::{self, Held};
use super::check::{self, Fit, MAX_TERM_BYTES, Misfit, text_of};
use super::plan::model::{Field, FieldKind, Model};
use super::server::Behaviour;

/// The answer and the field that gave it: the field itself or one of its multi-fields.
#[derive(Clone, Copy)]
pub(super) struct Judged<'m> {
    pub fit: Fit,
    pub field: &'m Field,
}

/// Judges a value, each element of an array by itself; the worst answer counts.
pub(super) fn judge<'m>(model: &'m Model, field: &'m Field, value: Value<'_, '_>, held: &mut Held) -> Judged<'m> {
    let mut worst = Judged { fit: Fit::Fits, field };
    if value.kind() == Kind::Array {
        for element in value.elements() {
            worst = worse(worst, judge(model, field, element, held), model.server);
        }
        return worst;
    }
    worst.fit = one(field, value, model, held);
    for &id in &field.subfields {
        worst = worse(worst, judge(model, model.field(id), value, held), model.server);
    }
    worst
}

fn worse<'m>(a: Judged<'m>, b: Judged<'m>, server: Behaviour) -> Judged<'m> {
    let rank = |fit| match fit {
        Fit::Fits => 0,
        Fit::Ignored => 1,
        Fit::Unsure => 2,
        Fit::Implausible(_) => 3,
        // Noticed when all fields have read the value.
        Fit::Refused(Misfit::ImmenseTerm) if server.has_old_parser => 4,
        Fit::Refused(_) => 5,
    };
    if rank(b.fit) > rank(a.fit) { b } else { a }
}

fn one(field: &Field, value: Value<'_, '_>, model: &Model, held: &mut Held) -> Fit {
    match strict(field, value, model.server, held) {
        Fit::Refused(misfit) if misfit != Misfit::ImmenseTerm && ignores_any_malformed(field, model) => Fit::Ignored,
        fit => fit,
    }
}

pub(super) fn ignores_any_malformed(field: &Field, model: &Model) -> bool {
    let server = model.server;
    let is_covered = (server.ignores_any_malformed && model.limits.ignore_malformed)
        || (server.ignores_objects && field.ignore_malformed);
    is_covered && !matches!(field.kind, FieldKind::Alias) && !field.has_script
}

fn strict(field: &Field, value: Value<'_, '_>, server: Behaviour, held: &mut Held) -> Fit {
    if field.has_script {
        return Fit::Refused(Misfit::ScriptedField);
    }
    match (&field.kind, value.kind()) {
        (FieldKind::Runtime, _) => Fit::Fits,
        (FieldKind::Alias, _) => Fit::Refused(Misfit::WriteToAlias),
        (FieldKind::Unknown, _) => Fit::Unsure,
        (_, Kind::Null) => Fit::Fits,
        (FieldKind::Flattened { ignore_above, depth_limit, has_terms }, Kind::Object) => {
            let prefix = term_prefix(field);
            let limits = FlattenedLimits { ignore_above: *ignore_above, depth: *depth_limit, prefix };
            if *has_terms { flattened(value, limits) } else { Fit::Fits }
        }
        (FieldKind::Flattened { has_terms: false, .. }, _) => Fit::Fits,
        (FieldKind::Flattened { .. }, _) => Fit::Refused(Misfit::ValueForObject),
        (FieldKind::Boolean { is_stored_anyhow: false }, Kind::Object) => Fit::Unsure,
        (FieldKind::Date { .. }, Kind::Object) if field.ignore_malformed && server.reads_into_dates => Fit::Unsure,
        (_, Kind::Object) => Fit::Refused(Misfit::ObjectForValue),
        _ => match scalar(field, value, server, held) {
            Fit::Refused(misfit) if field.ignore_malformed && misfit != Misfit::ImmenseTerm => Fit::Ignored,
            fit => fit,
        },
    }
}

fn scalar(field: &Field, value: Value<'_, '_>, server: Behaviour, held: &mut Held) -> Fit {
    match &field.kind {
        FieldKind::Number { number, coerce } => number::check(value, *number, *coerce, server, held),
        FieldKind::Boolean { is_stored_anyhow } if *is_stored_anyhow => check::boolean(value),
        FieldKind::Date { formats, is_nanos } => {
            if server.dates_look_at_numbers {
                *held = number::looked_at(value, server).or(*held);
            }
            formats.check(value, *is_nanos)
        }
        FieldKind::Ip => check::ip(value),
        FieldKind::Keyword { ignore_above, has_terms: true, has_normalizer } => {
            // Escapes only shrink when decoded, so that the raw length settles nearly every case.
            if value.raw().len() <= (*ignore_above).min(MAX_TERM_BYTES) {
                return Fit::Fits;
            }
            let text = text_of(value);
            if check::is_longer(&text, *ignore_above) {
                Fit::Ignored
            } else if text.len() <= MAX_TERM_BYTES {
                Fit::Fits
            } else if *has_normalizer {
                Fit::Unsure
            } else {
                Fit::Refused(Misfit::ImmenseTerm)
            }
        }
        FieldKind::Text { is_one_term: true } if value.raw().len() > MAX_TERM_BYTES => Fit::Unsure,
        _ => Fit::Fits,
    }
}

/// How many bytes stand before the key in the terms of a flattened field: in OpenSearch `attrs.attrs.` for `attrs`.
pub(super) fn term_prefix(field: &Field) -> usize {
    if field.type_name == "flat_object" { 2 * (field.path.len() + 1) } else { 0 }
}

#[derive(Clone, Copy)]
pub(super) struct FlattenedLimits {
    /// In UTF-16 units.
    pub ignore_above: usize,
    /// Names in a key, from the flattened field down.
    pub depth: usize,
    /// Bytes before the key in a term; where there are some, keys may hold NUL.
    pub prefix: usize,
}

/// Whether an object can be a value of a `flattened` field.
pub(super) fn flattened(value: Value<'_, '_>, limits: FlattenedLimits) -> Fit {
    // No key and value together can be longer than the text they stand in.
    let may_be_long = limits.prefix + value.raw().len() > MAX_TERM_BYTES;
    let may_have_nul = limits.prefix == 0 && value.raw().contains("\\u0000");
    flattened_object(value, limits, 1, limits.prefix, may_be_long, may_have_nul)
}

fn flattened_object(
    object: Value<'_, '_>,
    limits: FlattenedLimits,
    depth: usize,
    key_bytes: usize,
    may_be_long: bool,
    may_have_nul: bool,
) -> Fit {
    for (key, value) in object.members() {
        let name = key.name();
        if may_have_nul && name.contains('\0') {
            return Fit::Refused(Misfit::NulInKey);
        }
        let key_bytes = key_bytes + name.len();
        let fit = flattened_value(value, limits, depth, key_bytes, may_be_long, may_have_nul);
        if fit != Fit::Fits {
            return fit;
        }
    }
    Fit::Fits
}

fn flattened_value(
    value: Value<'_, '_>,
    limits: FlattenedLimits,
    depth: usize,
    key_bytes: usize,
    may_be_long: bool,
    may_have_nul: bool,
) -> Fit {
    match value.kind() {
        Kind::Object if depth + 1 > limits.depth => Fit::Refused(Misfit::TooDeep),
        // One byte more for the dot.
        Kind::Object => flattened_object(value, limits, depth + 1, key_bytes + 1, may_be_long, may_have_nul),
        Kind::Array => value
            .elements()
            .map(|element| flattened_value(element, limits, depth, key_bytes, may_be_long, may_have_nul))
            .find(|fit| *fit != Fit::Fits)
            .unwrap_or(Fit::Fits),
        Kind::Null => Fit::Fits,
        _ if !may_be_long => Fit::Fits,
        _ => {
            let text = text_of(value);
            // Key and value are one term with a NUL between them.
            let is_immense = key_bytes + 1 + text.len() > MAX_TERM_BYTES;
            if is_immense && !check::is_longer(&text, limits.ignore_above) {
                Fit::Refused(Misfit::ImmenseTerm)
            } else {
                Fit::Fits
            }
        }
    }
}
