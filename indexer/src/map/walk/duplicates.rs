//! Keys that an object has twice, which Elasticsearch refuses even in what it does not index.

use millrace_common::json::{Key, Kind, Value};

use super::seen::Seen;
use super::{Member, Walk, Way, What};

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    /// Notes the member before this one that has the same name.
    pub(super) fn earlier_duplicates(
        &mut self,
        object: Value<'p, 't>,
        up: Option<&Way<'_, 't>>,
        last: &Key<'_, '_>,
        name: &str,
    ) {
        let end = last.span().start;
        let before =
            object.members().take_while(|(key, _)| key.span().start < end).filter(|(key, _)| key.is(name)).last();
        if let Some((key, value)) = before {
            let written = key.name();
            let way = Way { up, name, key: Some(&written) };
            let member = Member { start: key.span().start, key: &written, value, whole: value };
            self.note(What::Duplicate, &way, way.path(), member);
        }
    }

    /// Duplicate keys are refused even in what is not looked at.
    pub(super) fn inner_duplicates(&mut self, value: Value<'p, 't>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if matches!(value.kind(), Kind::Object | Kind::Array) && value.has_duplicate_keys() {
            self.skip(value, Some((way, member)));
        }
    }

    /// Notes the duplicates inside a value that is otherwise not looked at.
    pub(super) fn skip(&mut self, value: Value<'p, 't>, at: Option<(&Way<'_, 't>, Member<'_, 'p, 't>)>) {
        if !value.has_duplicate_keys() {
            return;
        }
        match value.kind() {
            Kind::Array => value.elements().for_each(|element| self.skip(element, at)),
            Kind::Object => {
                let up = at.map(|(way, _)| way);
                let mut seen = Seen::default();
                for (key, inner) in value.members() {
                    let name = key.name();
                    if seen.repeats(&name) {
                        self.earlier_duplicates(value, up, &key, &name);
                    }
                    let way = Way { up, name: &name, key: Some(&name) };
                    let member = Member { start: key.span().start, key: &name, value: inner, whole: inner };
                    self.skip(inner, Some((&way, member)));
                }
            }
            _ => {}
        }
    }
}
