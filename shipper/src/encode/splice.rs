//! The fast path of objects: a line whose fields do not meet ours is copied, with ours beside it or spliced in.

use millrace_common::json::{self, ByShape};

use super::own_fields::{Meeting, OwnFields};
use super::{Flags, Line, merge, timestamp};

/// Where our members go into an object of the line.
#[derive(Clone, Copy)]
struct Splice {
    root: usize,
    /// The number of the object in the line.
    object: u32,
    is_empty: bool,
}

/// How lines of one shape are copied as they stand, with our fields beside theirs or spliced into their objects.
struct Plan {
    /// The number of their time, if they have one of their own.
    time: Option<u32>,
    splices: Vec<Splice>,
}

/// What else than its shape decides how a line takes our fields.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Company {
    own_names: u64,
    is_wrapped: bool,
}

/// The plans of the shapes met so far.
#[derive(Default)]
pub struct Plans {
    /// `None`: names collide or repeat.
    known: ByShape<(Company, Option<Plan>)>,
    /// Of a line without a shape.
    single: Option<Plan>,
}

/// Objects of a line that ours can be spliced into; more than these take the slow path.
const MAX_SPLICES: usize = 8;

impl Plans {
    /// Appends the record of an object.
    pub fn encode(&mut self, value: json::Value<'_, '_>, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
        let is_readable = |time: u32| timestamp::is_readable(value.numbered(time));
        match self.plan(value, line.wrapper.is_some(), own) {
            Some(plan) if plan.time.is_none_or(is_readable) => splice(value, plan, line, own, out),
            _ => merge::encode(value, line, own, out),
        }
    }

    fn plan(&mut self, value: json::Value<'_, '_>, is_wrapped: bool, own: &OwnFields) -> Option<&Plan> {
        let Some(shape) = value.shape() else {
            self.single = plan(value, is_wrapped, own);
            return self.single.as_ref();
        };
        let company = Company { own_names: own.names, is_wrapped };
        if self.known.get(shape).is_none_or(|(known, _)| *known != company) {
            self.known.insert(shape, (company, plan(value, is_wrapped, own)));
        }
        self.known.get(shape)?.1.as_ref()
    }
}

fn splice(value: json::Value<'_, '_>, plan: &Plan, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
    let has_time = plan.time.is_some();
    out.push(b'{');
    if !has_time {
        out.extend_from_slice(b"\"@timestamp\":\"");
        line.write_time(out);
        out.push(b'"');
    }
    let raw = value.raw().as_bytes();
    let inner = raw[1..raw.len() - 1].trim_ascii();
    if !inner.is_empty() {
        if !has_time {
            out.push(b',');
        }
        // Trimming took from the front what stood between the brace and the first key.
        let mut at = raw[1..].iter().take_while(|b| b.is_ascii_whitespace()).count() + 1;
        let end = at + inner.len();
        for splice in &plan.splices {
            let brace = value.numbered(splice.object).span().end - 1 - value.span().start;
            out.extend_from_slice(&raw[at..brace]);
            if !splice.is_empty {
                out.push(b',');
            }
            own.write_inner(splice.root, out, line.offset, line.flags);
            at = brace;
        }
        out.extend_from_slice(&raw[at..end]);
    }
    if plan.splices.is_empty() {
        own.write(out, line.offset, line.flags);
    } else {
        for root in (0..own.num_roots()).filter(|root| plan.splices.iter().all(|splice| splice.root != *root)) {
            out.push(b',');
            own.write_root(root, out, line.offset, line.flags);
        }
    }
    line.write_stream(out);
    out.push(b'}');
    line.flags
}

/// The plan of a line's shape, without a look at its values; `None` if names collide or repeat.
fn plan(value: json::Value<'_, '_>, is_wrapped: bool, own: &OwnFields) -> Option<Plan> {
    if value.has_duplicate_keys() || is_wrapped && own.meeting("stream") != Meeting::No {
        return None;
    }
    let mut plan = Plan { time: None, splices: Vec::new() };
    for (key, member) in value.members() {
        let name = key.raw();
        if name == "@timestamp" {
            plan.time = Some(member.number());
        } else if name.contains('\\') || (is_wrapped && is_stream(name)) {
            return None;
        }
        match own.meeting(name) {
            Meeting::No => {}
            Meeting::Object(root) if member.kind() == json::Kind::Object => {
                if plan.splices.len() == MAX_SPLICES || member.members().any(|(key, _)| own.has_member(root, key.raw()))
                {
                    return None;
                }
                let is_empty = member.members().next().is_none();
                plan.splices.push(Splice { root, object: member.number(), is_empty });
            }
            Meeting::Object(_) | Meeting::Other => return None,
        }
    }
    Some(plan)
}

fn is_stream(name: &str) -> bool {
    name.strip_prefix("stream").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
