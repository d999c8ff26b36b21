//! A place in a text, and what of JSON (RFC 8259) stands there.

use super::text::plain_prefix;
use super::{Kind, SyntaxError};

pub(super) struct Cursor<'t> {
    pub text: &'t [u8],
    pub at: usize,
    fault: Option<SyntaxError>,
}

/// The text is not JSON: [`Cursor::fault`] tells why. It has no size, so that results fit into registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotJson;

impl<'t> Cursor<'t> {
    pub fn at_start(text: &'t [u8]) -> Self {
        Self { text, at: 0, fault: None }
    }

    #[cold]
    pub fn fail<T>(&mut self, fault: SyntaxError) -> Result<T, NotJson> {
        self.fault = Some(fault);
        Err(NotJson)
    }

    pub fn expected<T>(&mut self, expected: &'static str) -> Result<T, NotJson> {
        self.fail(SyntaxError::Expected { expected, at: self.at })
    }

    /// After a failure.
    pub fn fault(self) -> SyntaxError {
        self.fault.unwrap_or(SyntaxError::Expected { expected: "JSON", at: self.at })
    }

    /// Passes a value that is neither object nor array. Returns what it is, and whether it has escapes.
    #[inline]
    pub fn scalar(&mut self) -> Result<(Kind, bool), NotJson> {
        let kind = match self.peek() {
            Some(b'"') => return Ok((Kind::String, self.string()?)),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                return Ok((Kind::Number, false));
            }
            Some(b't') => self.literal("true", Kind::Bool(true))?,
            Some(b'f') => self.literal("false", Kind::Bool(false))?,
            Some(b'n') => self.literal("null", Kind::Null)?,
            _ => return self.expected("a value"),
        };
        Ok((kind, false))
    }

    fn literal(&mut self, word: &'static str, kind: Kind) -> Result<Kind, NotJson> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return self.expected("a value");
        }
        self.at += word.len();
        Ok(kind)
    }

    /// Passes a string, which begins here. Returns whether it has escapes.
    pub fn string(&mut self) -> Result<bool, NotJson> {
        let mut has_escape = false;
        self.at += 1;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(has_escape);
                }
                Some(b'\\') => {
                    has_escape = true;
                    self.escape()?;
                }
                Some(_) => return self.fail(SyntaxError::ControlCharacter { at: self.at }),
                None => return self.expected("the closing `\"` of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return self.expected("four hexadecimal digits after `\\u`");
                }
                self.at += 6;
            }
            _ => return self.expected("a valid escape after `\\`"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotJson> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            _ => return self.expected("a digit"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), NotJson> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return self.expected("a digit");
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    #[inline]
    pub fn skip_space(&mut self) {
        if self.peek().is_some_and(|byte| byte <= b' ') {
            self.skip_some_space();
        }
    }

    fn skip_some_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}
