//! Settings from the command line, laid over the file.

use super::faults::{Faults, Origin};
use super::tree::{Content, Entry, Node, Scalar, join};

/// One setting given by a flag or its environment twin; it replaces what the file says.
#[derive(Debug, Clone)]
pub struct Setting {
    flag: String,
    path: String,
    value: Vec<String>,
    is_list: bool,
}

impl Setting {
    /// A single value for the key at `path` (`kafka.topic`, `inputs[0].paths`).
    pub fn one(flag: &str, path: &str, value: impl Into<String>) -> Self {
        Self { flag: flag.to_owned(), path: path.to_owned(), value: vec![value.into()], is_list: false }
    }

    /// A list for the key at `path`.
    pub fn list<S: Into<String>>(flag: &str, path: &str, values: impl IntoIterator<Item = S>) -> Self {
        let value = values.into_iter().map(Into::into).collect();
        Self { flag: flag.to_owned(), path: path.to_owned(), value, is_list: true }
    }

    pub(super) fn lay_over(&self, root: &mut Node, faults: &mut Faults) {
        let origin = Origin::Flag(self.flag.clone());
        let scalar = |text: &String| Node {
            origin: origin.clone(),
            content: Content::Scalar(Scalar { text: text.clone(), plain: false, filled: true }),
        };
        let content = match (self.is_list, self.value.first()) {
            (true, _) => Content::List(self.value.iter().map(scalar).collect()),
            (false, Some(text)) => scalar(text).content,
            (false, None) => return,
        };
        for index in 0..if self.is_list { self.value.len() } else { 0 } {
            faults.mark(format!("{}[{index}]", self.path), origin.clone());
        }
        faults.mark(self.path.clone(), origin.clone());
        let mut node = root;
        let mut path = String::new();
        for step in steps(&self.path) {
            node = match step {
                Step::Key(key) => {
                    path = join(&path, key);
                    descend_key(node, key, &origin)
                }
                Step::Index(index) => {
                    path = format!("{path}[{index}]");
                    descend_index(node, index, &origin)
                }
            };
            if node.origin == origin && path != self.path {
                faults.mark(path.clone(), origin.clone());
            }
        }
        *node = Node { origin, content };
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split('.').flat_map(|part| {
        let (key, rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        let indices = rest.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok()).map(Step::Index);
        std::iter::once(Step::Key(key)).chain(indices)
    })
}

fn descend_key<'a>(node: &'a mut Node, key: &str, origin: &Origin) -> &'a mut Node {
    if !matches!(node.content, Content::Map(_)) {
        *node = Node { origin: origin.clone(), content: Content::Map(Vec::new()) };
    }
    match &mut node.content {
        Content::Map(entries) => {
            let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
                let value = Node { origin: origin.clone(), content: Content::Map(Vec::new()) };
                entries.push(Entry { key: key.to_owned(), origin: origin.clone(), value, is_merged: false });
                entries.len() - 1
            });
            &mut entries[index].value
        }
        _ => unreachable!("made a mapping above"),
    }
}

fn descend_index<'a>(node: &'a mut Node, index: usize, origin: &Origin) -> &'a mut Node {
    if !matches!(node.content, Content::List(_)) {
        *node = Node { origin: origin.clone(), content: Content::List(Vec::new()) };
    }
    match &mut node.content {
        Content::List(items) => {
            while items.len() <= index {
                items.push(Node { origin: origin.clone(), content: Content::Map(Vec::new()) });
            }
            &mut items[index]
        }
        _ => unreachable!("made a list above"),
    }
}
