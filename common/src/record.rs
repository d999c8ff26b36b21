//! The identity of a record: which bytes of which file it stands for.
//!
//! A [`RecordId`] is a pure function of host, file, byte range and bytes, so reading the same bytes again gives the same
//! id, and Elasticsearch refuses the second copy. Text form: 32 characters of unpadded base64url over 24 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, [`RecordId::VERSION`] |
//! | 8 | source id |
//! | 7 | start of the covered range |
//! | 4 | length of the covered range |
//! | 4 | checksum of the covered bytes |
//!
//! All big-endian, so that ids of one source sort by position.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// One generation of one file on one host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u64);

impl SourceId {
    /// Derives the id. `birth_time_ns` is nanoseconds since the epoch, 0 where the file system has no birth time.
    ///
    /// Path, device and content are left out on purpose: they change under rename, reboot and append.
    pub fn derive(host_id: &str, inode: u64, birth_time_ns: u64, generation: u32) -> Self {
        let mut bytes = Vec::with_capacity(host_id.len() + 24);
        bytes.extend_from_slice(&(host_id.len() as u64).to_be_bytes());
        bytes.extend_from_slice(host_id.as_bytes());
        bytes.extend_from_slice(&inode.to_be_bytes());
        bytes.extend_from_slice(&birth_time_ns.to_be_bytes());
        bytes.extend_from_slice(&generation.to_be_bytes());
        Self(xxh3_64(&bytes))
    }

    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the Kafka partition that keeps this source in order. `num_partitions` must not be 0.
    pub fn partition(self, num_partitions: u32) -> i32 {
        // The id is already a uniform hash. The remainder fits: Kafka counts partitions in an i32.
        (self.0 % u64::from(num_partitions)) as i32
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for SourceId {
    type Err = InvalidSourceId;

    fn from_str(text: &str) -> Result<Self, InvalidSourceId> {
        let valid = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let value = u64::from_str_radix(text, 16).ok().filter(|_| valid);
        value.map(Self).ok_or_else(|| InvalidSourceId(text.to_owned()))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a source id: expected 16 lower-case hexadecimal digits")]
pub struct InvalidSourceId(String);

impl Serialize for SourceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SourceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The bytes of a source that a record stands for: `start..start + length`.
///
/// Ranges of one source join without holes: each begins where the one before it ended, line ends and skipped bytes
/// included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoveredRange {
    pub start: u64,
    pub length: u32,
}

impl CoveredRange {
    /// The first position that cannot be the start of a range: ids keep 56 bits of it.
    pub const MAX_START: u64 = 1 << 56;

    pub const fn end(self) -> u64 {
        self.start + self.length as u64
    }

    pub const fn contains(self, position: u64) -> bool {
        self.start <= position && position < self.end()
    }
}

/// Identity of a record, also its Kafka key and its Elasticsearch `_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    pub source: SourceId,
    pub range: CoveredRange,
    pub checksum: u32,
}

impl RecordId {
    pub const VERSION: u8 = 0x01;
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 32;

    /// Identifies the record that covers `bytes`, which stand at `start` in `source`.
    ///
    /// `bytes` must be shorter than 4 GiB and `start` below [`CoveredRange::MAX_START`]; the framing guarantees both.
    pub fn of(source: SourceId, start: u64, bytes: &[u8]) -> Self {
        debug_assert!(start < CoveredRange::MAX_START && u32::try_from(bytes.len()).is_ok());
        let range = CoveredRange { start, length: bytes.len() as u32 };
        Self { source, range, checksum: fold(xxh3_64(bytes)) }
    }

    /// Writes the text form.
    pub fn encode(&self) -> [u8; Self::TEXT_LEN] {
        let (source, CoveredRange { start, length }) = (self.source.0, self.range);
        let parts = [
            u64::from(Self::VERSION) << 40 | source >> 24,
            source << 24 | start >> 32,
            start << 16 | u64::from(length) >> 16,
            u64::from(length) << 32 | u64::from(self.checksum),
        ];
        let mut text = [0; Self::TEXT_LEN];
        for (digits, bits) in text.as_chunks_mut().0.iter_mut().zip(parts) {
            *digits = digits_of(bits);
        }
        text
    }

    /// Reads a Kafka key. `None` if it is not the text form of an id of this version: the record is another producer's.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let key: &[u8; Self::TEXT_LEN] = key.try_into().ok()?;
        let (digits, _) = key.as_chunks();
        let (a, b, c, d) = (bits_of(&digits[0])?, bits_of(&digits[1])?, bits_of(&digits[2])?, bits_of(&digits[3])?);
        (a >> 40 == u64::from(Self::VERSION)).then_some(Self {
            source: SourceId(a << 24 | b >> 24),
            range: CoveredRange {
                start: (b & 0xff_ffff) << 32 | c >> 16,
                length: ((c & 0xffff) << 16 | d >> 32) as u32,
            },
            checksum: d as u32,
        })
    }
}

// Base64url (RFC 4648, section 5), 48 bits at a time: ids are all of one length, and a library for any takes twice as long.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The value of each digit.
const VALUES: [Option<u8>; 256] = {
    let mut values = [None; 256];
    let mut digit = 0;
    while digit < DIGITS.len() {
        values[DIGITS[digit] as usize] = Some(digit as u8);
        digit += 1;
    }
    values
};

fn digits_of(bits: u64) -> [u8; 8] {
    std::array::from_fn(|at| DIGITS[(bits >> (42 - 6 * at)) as usize % 64])
}

fn bits_of(digits: &[u8; 8]) -> Option<u64> {
    digits.iter().try_fold(0, |bits, digit| Some(bits << 6 | u64::from(VALUES[usize::from(*digit)]?)))
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).map_err(|_| fmt::Error)?)
    }
}

/// Checksum over covered bytes that do not fit into memory at once. Equal to that of [`RecordId::of`] on the whole.
#[derive(Clone, Default)]
pub struct CoveredBytes {
    hash: Xxh3,
    length: u64,
}

impl CoveredBytes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Bytes that the record is made of without covering them: an event's parts before its range.
    pub fn update_beside(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Identifies the record that covers all bytes seen, or `None` past 4 GiB, which an id cannot hold.
    pub fn identify(&self, source: SourceId, start: u64) -> Option<RecordId> {
        let length = u32::try_from(self.length).ok()?;
        Some(RecordId { source, range: CoveredRange { start, length }, checksum: fold(self.hash.digest()) })
    }
}

fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

/// Hash for bytes that are compared, not published: the first bytes of a file, the bytes before a position.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The [`fingerprint`] of bytes that come in pieces.
#[derive(Default)]
pub struct Fingerprint(Xxh3);

impl Fingerprint {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn digest(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_survives_its_text_form(source: u64, start in 0..CoveredRange::MAX_START, length: u32, checksum: u32) {
            let id = RecordId { source: SourceId(source), range: CoveredRange { start, length }, checksum };
            prop_assert_eq!(RecordId::decode(&id.encode()), Some(id));
            let mut raw = vec![RecordId::VERSION];
            raw.extend_from_slice(&source.to_be_bytes());
            raw.extend_from_slice(&start.to_be_bytes()[1..]);
            raw.extend_from_slice(&length.to_be_bytes());
            raw.extend_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(id.to_string(), URL_SAFE_NO_PAD.encode(raw));
        }

        #[test]
        fn ids_of_one_source_sort_by_position(a in 0..CoveredRange::MAX_START, b in 0..CoveredRange::MAX_START) {
            let raw = |start| {
                let id = RecordId::of(SourceId(7), start, b"line\n");
                URL_SAFE_NO_PAD.decode(id.encode()).unwrap()
            };
            prop_assert_eq!(raw(a).cmp(&raw(b)), a.cmp(&b));
        }

        #[test]
        fn a_checksum_in_parts_equals_the_whole(bytes: Vec<u8>, cut: prop::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            let mut parts = CoveredBytes::new();
            parts.update(&bytes[..cut]);
            parts.update(&bytes[cut..]);
            prop_assert_eq!(parts.identify(SourceId(1), 5), Some(RecordId::of(SourceId(1), 5, &bytes)));
        }

        #[test]
        fn foreign_keys_are_not_ids(key: Vec<u8>) {
            prop_assume!(key.len() != RecordId::TEXT_LEN);
            prop_assert_eq!(RecordId::decode(&key), None);
        }
    }

    #[test]
    fn the_text_form_is_stable() {
        let id = RecordId {
            source: SourceId(0x0102_0304_0506_0708),
            range: CoveredRange { start: 0x00a0_b0c0_d0e0_f001, length: 0x1122_3344 },
            checksum: 0x5566_7788,
        };
        let raw: [u8; 24] = [
            1, 1, 2, 3, 4, 5, 6, 7, 8, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0, 0x01, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
            0x77, 0x88,
        ];
        assert_eq!(id.to_string(), URL_SAFE_NO_PAD.encode(raw));
    }

    #[test]
    fn another_version_is_foreign() {
        let mut raw = [0u8; 24];
        raw[0] = 2;
        assert_eq!(RecordId::decode(URL_SAFE_NO_PAD.encode(raw).as_bytes()), None);
    }

    #[test]
    fn each_part_of_the_identity_changes_the_source_id() {
        let base = SourceId::derive("web-1", 10, 20, 0);
        for other in [("web-2", 10, 20, 0), ("web-1", 11, 20, 0), ("web-1", 10, 21, 0), ("web-1", 10, 20, 1)] {
            assert_ne!(base, SourceId::derive(other.0, other.1, other.2, other.3));
        }
    }
}
