//! The fast path of objects: a line whose fields do not meet ours is copied, with ours beside it or spliced in.

use millrace_common::json;

use super::own_fields::{Meeting, OwnFields};
use super::{Flags, Line, merge, timestamp};

/// Where our members go into an object of the line.
#[derive(Clone, Copy, Default)]
struct Splice {
    root: usize,
    /// Of the closing brace, relative to the record.
    at: usize,
    is_empty: bool,
}

/// Objects of a line that ours can be spliced into; more than these take the slow path.
const MAX_SPLICES: usize = 8;

/// Appends the record of an object.
pub fn encode(value: json::Value<'_, '_>, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
    let mut splices = [Splice::default(); MAX_SPLICES];
    let Some((has_time, num_splices)) = plan(value, line, own, &mut splices) else {
        return merge::encode(value, line, own, out);
    };
    let splices = &splices[..num_splices];
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
        for splice in splices {
            out.extend_from_slice(&raw[at..splice.at]);
            if !splice.is_empty {
                out.push(b',');
            }
            own.write_inner(splice.root, out, line.offset, line.flags);
            at = splice.at;
        }
        out.extend_from_slice(&raw[at..end]);
    }
    if splices.is_empty() {
        own.write(out, line.offset, line.flags);
    } else {
        for root in (0..own.num_roots()).filter(|root| splices.iter().all(|splice| splice.root != *root)) {
            out.push(b',');
            own.write_root(root, out, line.offset, line.flags);
        }
    }
    line.write_stream(out);
    out.push(b'}');
    line.flags
}

/// Whether the line can be copied as it stands, with ours beside it or spliced into its objects. Returns whether it has a
/// time of its own, and the number of splices; `None` if names collide or repeat.
fn plan(value: json::Value<'_, '_>, line: Line<'_>, own: &OwnFields, splices: &mut [Splice]) -> Option<(bool, usize)> {
    if value.has_duplicate_keys() || line.wrapper.is_some() && own.meeting("stream") != Meeting::No {
        return None;
    }
    let start = value.span().start;
    let mut has_time = false;
    let mut num_splices = 0;
    for (key, member) in value.members() {
        let name = key.raw();
        if name == "@timestamp" {
            has_time = true;
            if !timestamp::is_readable(member) {
                return None;
            }
        } else if name.contains('\\') || (line.wrapper.is_some() && is_stream(name)) {
            return None;
        }
        match own.meeting(name) {
            Meeting::No => {}
            Meeting::Object(root) if member.kind() == json::Kind::Object => {
                let mut is_empty = true;
                for (key, _) in member.members() {
                    is_empty = false;
                    if own.has_member(root, key.raw()) {
                        return None;
                    }
                }
                *splices.get_mut(num_splices)? = Splice { root, at: member.span().end - 1 - start, is_empty };
                num_splices += 1;
            }
            Meeting::Object(_) | Meeting::Other => return None,
        }
    }
    Some((has_time, num_splices))
}

fn is_stream(name: &str) -> bool {
    name.strip_prefix("stream").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
