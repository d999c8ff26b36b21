//! Where lines end, in each encoding.

/// What ends a line. A carriage return before the line feed belongs to the line's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEnd {
    #[default]
    Lf,
    /// A carriage return alone.
    Cr,
    Utf16Le,
    Utf16Be,
}

impl LineEnd {
    /// Bytes of one character of a line's end.
    pub fn unit(self) -> usize {
        match self {
            Self::Lf | Self::Cr => 1,
            Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// `length` without a character that is cut.
    pub fn whole(self, length: usize) -> usize {
        length - length % self.unit()
    }

    /// Length of the first line, its end included. `bytes` begin at a character's start.
    pub fn find(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Lf => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Self::Cr => memchr::memchr(b'\r', bytes).map(|at| at + 1),
            Self::Utf16Le => memchr::memchr_iter(b'\n', bytes)
                .find(|at| at % 2 == 0 && bytes.get(at + 1) == Some(&0))
                .map(|at| at + 2),
            Self::Utf16Be => {
                memchr::memchr_iter(b'\n', bytes).find(|at| at % 2 == 1 && bytes[at - 1] == 0).map(|at| at + 1)
            }
        }
    }

    /// A line without its end, if it has one.
    pub fn strip(self, line: &[u8]) -> &[u8] {
        let (end, before): (&[u8], &[u8]) = match self {
            Self::Lf => (b"\n", b"\r"),
            Self::Cr => (b"\r", b""),
            Self::Utf16Le => (b"\n\0", b"\r\0"),
            Self::Utf16Be => (b"\0\n", b"\0\r"),
        };
        match line.strip_suffix(end) {
            Some(line) => line.strip_suffix(before).unwrap_or(line),
            None => line,
        }
    }

    pub fn starts_with_return(self, line: &[u8]) -> bool {
        match self {
            Self::Lf => line.starts_with(b"\r"),
            Self::Cr => false,
            Self::Utf16Le => line.starts_with(b"\r\0"),
            Self::Utf16Be => line.starts_with(b"\0\r"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(line_end: LineEnd, mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut lines = Vec::new();
        while let Some(length) = line_end.find(bytes) {
            lines.push(line_end.strip(&bytes[..length]));
            bytes = &bytes[length..];
        }
        lines.push(bytes);
        lines
    }

    #[test]
    fn each_line_end_is_found_and_stripped() {
        assert_eq!(lines(LineEnd::Lf, b"a\r\n\nb\rc\nd"), [&b"a"[..], b"", b"b\rc", b"d"]);
        assert_eq!(lines(LineEnd::Cr, b"a\r\rb\nc\r"), [&b"a"[..], b"", b"b\nc", b""]);
    }

    #[test]
    fn a_line_feed_byte_inside_a_utf16_character_ends_no_line() {
        // U+0A0A, U+010A and U+0A01 have the byte in either half.
        let text = "\u{a0a}\u{10a}\u{a01}x\r\ny\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(lines(LineEnd::Utf16Le, &little), [&little[..8], &little[12..14], b""]);
        assert_eq!(lines(LineEnd::Utf16Be, &big), [&big[..8], &big[12..14], b""]);
    }
}
