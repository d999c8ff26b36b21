//! The validating pass over a text.

use std::num::NonZeroU32;

use super::cursor::{Cursor, NotJson};
use super::shapes::Part;
use super::{Kind, Node, Parser, SyntaxError};

/// A pass over a text, which notes its values in the parser.
pub(super) struct Scan<'p, 't> {
    cursor: Cursor<'t>,
    parser: &'p mut Parser,
}

/// What a value was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is complete.
    Over,
    /// An object or array, whose content comes next.
    Into,
}

impl<'p, 't> Scan<'p, 't> {
    pub fn of(text: &'t [u8], parser: &'p mut Parser) -> Self {
        Self { cursor: Cursor::at_start(text), parser }
    }

    /// Reads exactly one value, white space around it allowed.
    pub fn document(mut self) -> Result<(), SyntaxError> {
        self.whole().map_err(|NotJson| self.cursor.fault())
    }

    fn whole(&mut self) -> Result<(), NotJson> {
        self.cursor.skip_space();
        self.value()?;
        while let Some(&open) = self.parser.open.last() {
            match self.parser.nodes[open as usize].kind {
                Kind::Object => self.content::<true>(open)?,
                _ => self.content::<false>(open)?,
            }
        }
        self.cursor.skip_space();
        if self.cursor.peek().is_some() { self.cursor.expected("the end of the text") } else { Ok(()) }
    }

    /// Goes on in an object or array, right after its bracket or a complete value: to its end, or into the next object or array in it.
    fn content<const IS_OBJECT: bool>(&mut self, open: u32) -> Result<(), NotJson> {
        let (bracket, or_bracket) = if IS_OBJECT { (b'}', "`,` or `}`") } else { (b']', "`,` or `]`") };
        let mut is_empty = open as usize + 1 == self.parser.nodes.len();
        loop {
            self.cursor.skip_space();
            match self.cursor.peek() {
                Some(byte) if byte == bracket => {
                    self.close(open);
                    return Ok(());
                }
                Some(b',') if !is_empty => {
                    self.cursor.at += 1;
                    self.cursor.skip_space();
                }
                _ if is_empty => {}
                _ => return self.cursor.expected(or_bracket),
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

    fn key(&mut self) -> Result<(), NotJson> {
        let start = self.cursor.at;
        let Some((length, id)) = self.parser.vocabulary.expected(&self.cursor.text[start..]) else {
            return self.unexpected_key();
        };
        self.cursor.at += length - 1;
        self.push(start, Kind::String, false, Some(id.0));
        self.parser.shapes.add_name(id);
        self.cursor.at += 1;
        self.cursor.skip_space();
        Ok(())
    }

    #[cold]
    fn unexpected_key(&mut self) -> Result<(), NotJson> {
        let start = self.cursor.at;
        if self.cursor.peek() != Some(b'"') {
            return self.cursor.expected("a key in double quotes");
        }
        let has_escape = self.cursor.string()?;
        let end = self.cursor.at;
        self.push(start, Kind::String, has_escape, None);
        self.cursor.skip_space();
        if self.cursor.peek() != Some(b':') {
            return self.cursor.expected("`:`");
        }
        let is_close = self.cursor.at == end;
        self.cursor.at += 1;
        let node = self.parser.nodes.last_mut();
        let learned = node.filter(|_| is_close && !has_escape).and_then(|node| {
            let id = self.parser.vocabulary.learn(&self.cursor.text[start..self.cursor.at])?;
            node.mark = Some(id.0);
            Some(id)
        });
        match learned {
            Some(id) => self.parser.shapes.add_name(id),
            None => self.parser.shapes.add_unknown(),
        }
        self.cursor.skip_space();
        Ok(())
    }

    fn value(&mut self) -> Result<Step, NotJson> {
        match self.cursor.peek() {
            Some(b'{') => return self.open(Kind::Object),
            Some(b'[') => return self.open(Kind::Array),
            _ => {}
        }
        let start = self.cursor.at;
        let (kind, has_escape) = self.cursor.scalar()?;
        self.push(start, kind, has_escape, None);
        Ok(Step::Over)
    }

    fn open(&mut self, kind: Kind) -> Result<Step, NotJson> {
        let at = self.cursor.at;
        if self.parser.open.len() == self.parser.max_depth {
            let limit = self.parser.max_depth;
            return self.cursor.fail(SyntaxError::TooDeep { limit, at });
        }
        self.parser.open.push(self.parser.nodes.len() as u32);
        self.parser.shapes.add(if kind == Kind::Object { Part::Object } else { Part::Array });
        self.push(at, kind, false, None);
        self.cursor.at += 1;
        Ok(Step::Into)
    }

    fn close(&mut self, open: u32) {
        self.cursor.at += 1;
        let next = self.parser.nodes.len() as u32;
        let node = &mut self.parser.nodes[open as usize];
        node.end = self.cursor.at as u32;
        node.next = next;
        self.parser.open.pop();
        self.parser.shapes.add(Part::End);
    }

    /// Notes what began at `start` and ends here.
    fn push(&mut self, start: usize, kind: Kind, has_escape: bool, mark: Option<NonZeroU32>) {
        let (end, next) = (self.cursor.at as u32, self.parser.nodes.len() as u32 + 1);
        self.parser.nodes.push(Node { start: start as u32, end, next, kind, has_escape, mark });
    }
}
