//! A record of the dead letter topic, read back from its headers.

/// A letter as it was parked, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedLetter {
    pub id: String,
    pub reason: String,
    /// Empty where the letter has no such header, like the other texts.
    pub field: String,
    pub error_type: String,
    pub message: String,
    pub index: String,
    pub status: Option<u16>,
    pub attempts: Option<u32>,
    /// Where the record was read when it was rejected.
    pub topic: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    /// When it was parked, in milliseconds since the epoch.
    pub parked_ms: i64,
    /// When its id was parked for the first time, as far as the topic still tells.
    pub first_parked_ms: i64,
    /// Which part of the value this is, from 1, and of how many.
    pub part: Option<(u32, u32)>,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

/// A record that lacks the headers of a letter, or has them in another form.
#[derive(Debug, PartialEq, Eq)]
pub struct NotALetter;

impl ParkedLetter {
    /// Reads a record. `kafka_ms` stands in for a time that the headers do not tell.
    ///
    /// # Errors
    /// The record does not say its id and topic, or its part in a form that is understood.
    pub fn read<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        key: Option<&[u8]>,
        value: &[u8],
        kafka_ms: Option<i64>,
    ) -> Result<Self, NotALetter> {
        let mut letter = Self { parked_ms: kafka_ms.unwrap_or_default(), ..Self::default() };
        for (name, bytes) in headers {
            let text = || String::from_utf8_lossy(bytes).into_owned();
            match name {
                // Not to be changed in reading: another id would be another document.
                "millrace.id" => letter.id = String::from_utf8(bytes.to_vec()).map_err(|_| NotALetter)?,
                "dlq.topic" => letter.topic = String::from_utf8(bytes.to_vec()).map_err(|_| NotALetter)?,
                "dlq.reason" => letter.reason = text(),
                "dlq.field" => letter.field = text(),
                "dlq.error.type" => letter.error_type = text(),
                "dlq.error.message" => letter.message = text(),
                "dlq.index" => letter.index = text(),
                "dlq.status" => letter.status = text().parse().ok(),
                "dlq.attempts" => letter.attempts = text().parse().ok(),
                "dlq.partition" => letter.partition = text().parse().ok(),
                "dlq.offset" => letter.offset = text().parse().ok(),
                "dlq.timestamp" => {
                    let time = text().parse::<jiff::Timestamp>();
                    letter.parked_ms = time.map_or(letter.parked_ms, |time| time.as_millisecond());
                }
                "dlq.chunk" => letter.part = Some(parse_part(&text()).ok_or(NotALetter)?),
                _ => {}
            }
        }
        if letter.id.is_empty() || letter.topic.is_empty() {
            return Err(NotALetter);
        }
        letter.first_parked_ms = letter.parked_ms;
        letter.key = key.map(<[u8]>::to_vec);
        letter.value = value.to_vec();
        Ok(letter)
    }
}

/// `2/5`.
fn parse_part(text: &str) -> Option<(u32, u32)> {
    let (number, num) = text.split_once('/')?;
    let (number, num) = (number.parse().ok()?, num.parse().ok()?);
    (1..=num).contains(&number).then_some((number, num))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &[u8])]) -> Result<ParkedLetter, NotALetter> {
        ParkedLetter::read(headers.iter().copied(), Some(b"k"), b"v", Some(5))
    }

    #[test]
    fn a_letter_is_read_from_its_headers() {
        let letter = read(&[
            ("millrace.id", b"a"),
            ("dlq.topic", b"logs"),
            ("dlq.partition", b"3"),
            ("dlq.offset", b"42"),
            ("dlq.status", b"400"),
            ("dlq.timestamp", b"1970-01-01T00:00:01.000Z"),
            ("dlq.chunk", b"2/5"),
            ("other", b"\xff"),
        ])
        .unwrap();
        assert_eq!((letter.id.as_str(), letter.topic.as_str()), ("a", "logs"));
        assert_eq!((letter.partition, letter.offset, letter.status), (Some(3), Some(42), Some(400)));
        assert_eq!((letter.parked_ms, letter.part), (1_000, Some((2, 5))));
        assert_eq!((letter.key.as_deref(), letter.value.as_slice()), (Some(&b"k"[..]), &b"v"[..]));
    }

    #[test]
    fn the_topic_tells_when_a_letter_does_not() {
        assert_eq!(read(&[("millrace.id", b"a"), ("dlq.topic", b"t")]).unwrap().parked_ms, 5);
        assert_eq!(
            read(&[("millrace.id", b"a"), ("dlq.topic", b"t"), ("dlq.timestamp", b"now")]).unwrap().parked_ms,
            5
        );
    }

    #[test]
    fn what_does_not_say_its_id_topic_or_part_is_no_letter() {
        for headers in [
            &[][..],
            &[("millrace.id", &b"a"[..])],
            &[("dlq.topic", b"t")],
            &[("millrace.id", b"\xff"), ("dlq.topic", b"t")],
            &[("millrace.id", b"a"), ("dlq.topic", b"t"), ("dlq.chunk", b"0/2")],
            &[("millrace.id", b"a"), ("dlq.topic", b"t"), ("dlq.chunk", b"3/2")],
            &[("millrace.id", b"a"), ("dlq.topic", b"t"), ("dlq.chunk", b"x")],
        ] {
            assert_eq!(read(headers), Err(NotALetter), "{headers:?}");
        }
    }
}
