//! The validating pass over a text.

use std::num::NonZeroU32;

use super::shapes::Part;
use super::text::plain_prefix;
use super::{Kind, Node, Parser, SyntaxError};

/// A pass over a text, which notes its values in the parser.
pub(super) struct Scan<'p, 't> {
    pub text: &'t [u8],
    pub at: usize,
    pub parser: &'p mut Parser,
}

/// What a value was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is complete.
    Over,
    /// An object or array, whose content comes next.
    Into,
}

impl Scan<'_, '_> {
    /// Reads exactly one value, white space around it allowed.
    pub fn document(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        self.value()?;
        while let Some(&open) = self.parser.open.last() {
            match self.parser.nodes[open as usize].kind {
                Kind::Object => self.content::<true>(open)?,
                _ => self.content::<false>(open)?,
            }
        }
        self.skip_space();
        if self.at < self.text.len() { self.expected("the end of the text") } else { Ok(()) }
    }

    /// Goes on in an object or array, right after its bracket or a complete value: to its end, or into the next object or array in it.
    fn content<const IS_OBJECT: bool>(&mut self, open: u32) -> Result<(), SyntaxError> {
        let (bracket, or_bracket) = if IS_OBJECT { (b'}', "`,` or `}`") } else { (b']', "`,` or `]`") };
        let mut is_empty = open as usize + 1 == self.parser.nodes.len();
        loop {
            self.skip_space();
            match self.peek() {
                Some(byte) if byte == bracket => {
                    self.close(open);
                    return Ok(());
                }
                Some(b',') if !is_empty => {
                    self.at += 1;
                    self.skip_space();
                }
                _ if is_empty => {}
                _ => return self.expected(or_bracket),
            }
            is_empty = false;
            if IS_OBJECT {
                self.key()?;
            }
            if self.value()? == Step::Into {
                return Ok(());
            }
            if !IS_OBJECT {
                self.parser.shapes.add(Part::Scalar);
            }
        }
    }

    fn key(&mut self) -> Result<(), SyntaxError> {
        let Some((length, id)) = self.parser.vocabulary.expected(&self.text[self.at..]) else {
            return self.unexpected_key();
        };
        let start = self.at;
        self.at += length - 1;
        self.push(start, Kind::String, false, Some(id.0));
        self.parser.shapes.add_name(id);
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    #[cold]
    fn unexpected_key(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.expected("a key in double quotes");
        }
        self.string()?;
        let end = self.at;
        self.skip_space();
        if self.peek() != Some(b':') {
            return self.expected("`:`");
        }
        let is_close = self.at == end;
        self.at += 1;
        let node = self.parser.nodes.last_mut();
        let learned = node.filter(|node| is_close && !node.has_escape).and_then(|node| {
            let id = self.parser.vocabulary.learn(&self.text[start..self.at])?;
            node.mark = Some(id.0);
            Some(id)
        });
        match learned {
            Some(id) => self.parser.shapes.add_name(id),
            None => self.parser.shapes.add_unknown(),
        }
        self.skip_space();
        Ok(())
    }

    fn value(&mut self) -> Result<Step, SyntaxError> {
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'{') => return self.open(Kind::Object),
            Some(b'[') => return self.open(Kind::Array),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal("true", Kind::Bool(true))?,
            Some(b'f') => self.literal("false", Kind::Bool(false))?,
            Some(b'n') => self.literal("null", Kind::Null)?,
            _ => return self.expected("a value"),
        }
        Ok(Step::Over)
    }

    fn open(&mut self, kind: Kind) -> Result<Step, SyntaxError> {
        if self.parser.open.len() == self.parser.max_depth {
            return Err(SyntaxError::TooDeep { limit: self.parser.max_depth, at: self.at });
        }
        self.parser.open.push(self.parser.nodes.len() as u32);
        self.parser.shapes.add(if kind == Kind::Object { Part::Object } else { Part::Array });
        self.push(self.at, kind, false, None);
        self.at += 1;
        Ok(Step::Into)
    }

    fn close(&mut self, open: u32) {
        self.at += 1;
        let next = self.parser.nodes.len() as u32;
        let node = &mut self.parser.nodes[open as usize];
        node.end = self.at as u32;
        node.next = next;
        self.parser.open.pop();
        self.parser.shapes.add(Part::End);
    }

    fn push(&mut self, start: usize, kind: Kind, has_escape: bool, mark: Option<NonZeroU32>) {
        let next = self.parser.nodes.len() as u32 + 1;
        self.parser.nodes.push(Node { start: start as u32, end: self.at as u32, next, kind, has_escape, mark });
    }

    fn literal(&mut self, word: &'static str, kind: Kind) -> Result<(), SyntaxError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return self.expected("a value");
        }
        let start = self.at;
        self.at += word.len();
        self.push(start, kind, false, None);
        Ok(())
    }

    fn string(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        let mut has_escape = false;
        self.at += 1;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.push(start, Kind::String, has_escape, None);
                    return Ok(());
                }
                Some(b'\\') => {
                    has_escape = true;
                    self.escape()?;
                }
                Some(_) => return Err(SyntaxError::ControlCharacter { at: self.at }),
                None => return self.expected("the closing `\"` of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), SyntaxError> {
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

    fn number(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
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
        self.push(start, Kind::Number, false, None);
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), SyntaxError> {
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
    fn skip_space(&mut self) {
        if self.peek().is_some_and(|byte| byte <= b' ') {
            self.skip_some_space();
        }
    }

    fn skip_some_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError::Expected { expected, at: self.at })
    }
}
