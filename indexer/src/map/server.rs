//! Where servers answer differently. Each difference was found by `tests/tests/heavy/differential.rs`.

use super::options::{Flavor, ServerVersion};

/// What one server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// The parser of Elasticsearch 7, which OpenSearch kept:
    /// - names of blanks are names;
    /// - dots lead through objects only, not through nested ones, nor into `flattened` fields;
    /// - a null creates nothing, not even the objects on its way;
    /// - under `dynamic: false` the elements of an array with a dotted name are read as those of its last part;
    /// - a template that disables an object does not keep a dotted name from creating what is inside it;
    /// - the limit of depth is checked when new fields are merged, and terms that are too long when all else is done;
    /// - booleans have no `ignore_malformed`;
    /// - a text of the form of a date makes its new name one, even if its month does not have the day, for patterns with `y`;
    /// - a year of ten digits ends the search among the formats of a date.
    pub has_old_parser: bool,
    /// How new fields count against `total_fields.limit`.
    pub counting: Counting,
    /// `index.mapping.ignore_malformed` covers every type and value.
    pub ignores_any_malformed: bool,
    /// An object in a date with `ignore_malformed` is not skipped: its members are read as those of the object around.
    pub reads_into_dates: bool,
    /// The `ignore_malformed` of a field covers objects too.
    pub ignores_objects: bool,
    /// A zero in a string may have any exponent, also for a `long`.
    pub has_any_zero: bool,
    /// `epoch_millis` takes a sign.
    pub has_signed_epochs: bool,
    /// `date_nanos` has a format of its own by default.
    pub has_nanos_format: bool,
    /// A decimal or huge number of a new name that nothing reads (a template makes text of it, a runtime field skips it)
    /// stays in the parser and comes out for the next number that is read as a double: Jackson 2.15 to 2.18.
    pub holds_numbers: bool,
    /// A mapped date looks at its number too, and may leave it there.
    pub dates_look_at_numbers: bool,
    /// It comes out for decimals too: Jackson 2.18.
    pub holds_for_decimals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// Each as it is met, with all that comes with it; runtime fields count.
    AsMet,
    /// Each as it is met, by itself; with all that comes with it once the document is read. Runtime fields do not count.
    AsMetAlone,
    /// Once the document is read.
    AtTheEnd,
}

impl Behaviour {
    pub fn of(server: ServerVersion) -> Self {
        let is_opensearch = server.flavor == Flavor::OpenSearch;
        let is_seven = !is_opensearch && server.major < 8;
        let counting = match (is_opensearch, is_seven) {
            (true, _) => Counting::AtTheEnd,
            (_, true) => Counting::AsMetAlone,
            _ => Counting::AsMet,
        };
        Self {
            has_old_parser: is_opensearch || is_seven,
            counting,
            ignores_any_malformed: is_opensearch,
            reads_into_dates: !is_opensearch && server.major >= 9,
            ignores_objects: is_opensearch && server.major >= 3,
            has_any_zero: is_opensearch,
            has_signed_epochs: !is_seven,
            has_nanos_format: !is_opensearch,
            holds_numbers: is_opensearch || (server.major, server.minor) >= (8, 9),
            dates_look_at_numbers: !is_opensearch && server.major >= 9,
            holds_for_decimals: is_opensearch,
        }
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::of(ServerVersion::default())
    }
}
