//! Earlier texts as patterns for the next ones.
//!
//! A program writes most of its lines with the same names, brackets and spaces, and other values. All but the values is compared
//! with an earlier text, which says also what it means; only values are read.

use super::cursor::Cursor;
use super::literal::{self, Literal, Window};
use super::seldom::Seldom;
use super::shapes::ShapeId;
use super::{Kind, Node};

/// Names, brackets, commas and spaces that follow each other.
struct Piece {
    literal: Literal,
    /// Where it stood in the text that was last compared.
    start: u32,
    /// The node after those of names, objects and arrays that begin in it.
    nodes_end: u32,
    /// The place in the template's list after those of objects and arrays that end in it.
    closed_end: u32,
    /// A value comes after it, which has that node.
    has_value: bool,
}

/// A text with a shape.
struct Template {
    shape: ShapeId,
    pieces: Box<[Piece]>,
    /// Objects and arrays, in the order of their ends.
    closed: Box<[u32]>,
    /// Of the text that fitted last.
    nodes: Vec<Node>,
    /// The one that came after it last time.
    next: usize,
    /// Texts of its shape that did not fit.
    misses: Seldom,
}

impl Template {
    fn of(shape: ShapeId, text: &[u8], nodes: &[Node], next: usize) -> Self {
        let is_open = |node: &Node| matches!(node.kind, Kind::Object | Kind::Array);
        let mut is_name = vec![false; nodes.len()];
        for (at, node) in nodes.iter().enumerate().filter(|(_, node)| node.kind == Kind::Object) {
            let mut name = at + 1;
            while name < node.next as usize {
                is_name[name] = true;
                name = nodes[name + 1].next as usize;
            }
        }
        let mut closed: Vec<_> = (0..nodes.len() as u32).filter(|&at| is_open(&nodes[at as usize])).collect();
        closed.sort_by_key(|&at| nodes[at as usize].end);
        let values = nodes.iter().enumerate().filter(|(at, node)| !is_name[*at] && !is_open(node));
        let values = values.map(|(at, node)| (at as u32, node.start, node.end));
        let (mut pieces, mut start) = (Vec::new(), 0);
        let text_end = (nodes.len() as u32, text.len() as u32, text.len() as u32);
        for (value, value_start, value_end) in values.chain([text_end]) {
            let first = pieces.len();
            let is_last = value == text_end.0;
            while first == pieces.len() || start < value_start {
                let end = value_start.min(start + literal::MOST_BYTES as u32);
                let nodes_end = nodes.partition_point(|node| node.start < end) as u32;
                let closed_end = closed.partition_point(|&at| nodes[at as usize].end <= end) as u32;
                let literal = Literal::new(&text[start as usize..end as usize]);
                let has_value = end == value_start && !is_last;
                pieces.push(Piece { literal, start, nodes_end: nodes_end.min(value), closed_end, has_value });
                start = end;
            }
            start = value_end;
        }
        let (pieces, closed) = (pieces.into(), closed.into());
        Self { shape, pieces, closed, nodes: nodes.to_vec(), next, misses: Seldom::default() }
    }

    /// Makes `nodes` those of `text`, if that differs from the template in values only. If not, they are those of no text.
    fn fits(&mut self, text: &[u8]) -> bool {
        let (nodes, mut node, mut closed) = (&mut self.nodes[..], 0, 0);
        let mut cursor = Cursor::at_start(text);
        for piece in &mut self.pieces {
            let at = cursor.at;
            if !piece.literal.is_at(&Window::of(&text[at..])) {
                return false;
            }
            cursor.at += piece.literal.len();
            // What begins or ends in it has moved with it.
            let moved = (at as u32).wrapping_sub(piece.start);
            piece.start = at as u32;
            let (nodes_end, closed_end) = (piece.nodes_end as usize, piece.closed_end as usize);
            for node in &mut nodes[node..nodes_end] {
                node.start = node.start.wrapping_add(moved);
                if node.kind == Kind::String {
                    node.end = node.end.wrapping_add(moved);
                }
            }
            for &at in &self.closed[closed..closed_end] {
                let node = &mut nodes[at as usize];
                node.end = node.end.wrapping_add(moved);
            }
            (node, closed) = (nodes_end, closed_end);
            if piece.has_value {
                let start = cursor.at as u32;
                let Ok((kind, has_escape)) = cursor.scalar() else { return false };
                let value = &mut nodes[node];
                (value.start, value.end) = (start, cursor.at as u32);
                (value.kind, value.has_escape) = (kind, has_escape);
                node += 1;
            }
        }
        cursor.at == text.len()
    }
}

#[derive(Default)]
pub(super) struct Templates {
    known: Vec<Template>,
    /// That of the last text.
    last: usize,
    /// Shapes without a template, once there is no room.
    unmet: Seldom,
    /// The one to be replaced then.
    oldest: usize,
}

/// More are not worth their memory.
const MOST_TEMPLATES: usize = 16;
const MOST_NODES: usize = 256;
const MOST_BYTES: usize = 4 << 10;

impl Templates {
    /// The template that `text` fits, if it is the one that is expected.
    #[inline]
    pub fn fit(&mut self, text: &[u8]) -> Option<usize> {
        let expected = self.known.get(self.last)?.next;
        let fits = self.known.get_mut(expected)?.fits(text);
        fits.then(|| {
            self.last = expected;
            expected
        })
    }

    pub fn nodes(&self, template: usize) -> &[Node] {
        &self.known[template].nodes
    }

    /// Notes a text that did not fit, and what it holds.
    pub fn note(&mut self, shape: ShapeId, text: &[u8], nodes: &[Node]) {
        if nodes.len() > MOST_NODES || text.len() > MOST_BYTES {
            return;
        }
        let known = self.known.iter().position(|template| template.shape == shape);
        let place = match known {
            Some(place) => {
                let template = &mut self.known[place];
                if template.misses.is_time() {
                    *template = Template::of(shape, text, nodes, template.next);
                }
                place
            }
            None if self.known.len() < MOST_TEMPLATES => {
                let place = self.known.len();
                self.known.push(Template::of(shape, text, nodes, place));
                place
            }
            None => {
                if !self.unmet.is_time() {
                    return;
                }
                let place = self.oldest;
                self.oldest = (place + 1) % MOST_TEMPLATES;
                self.known[place] = Template::of(shape, text, nodes, place);
                place
            }
        };
        self.known[self.last].next = place;
        self.last = place;
    }
}
