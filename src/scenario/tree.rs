//! YAML text → a tree that knows where each value stands, within budgets: 1 MiB of text, 64 levels, a bounded expansion of
//! aliases. Scalars stay text here; what type a plain one has is decided after interpolation ([`Node::to_json`]).
//!
//! Goal: nothing a file says is dropped silently (duplicate keys, tags and second documents are refused).
//! Non-goal: the whole of YAML; merge keys, tags and non-text keys have no place in a scenario.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// Most bytes of a scenario.
pub const MAX_BYTES: usize = 1 << 20;
/// Most levels of nesting, aliases expanded.
pub const MAX_DEPTH: usize = 64;
/// Most nodes, aliases expanded.
pub const MAX_NODES: usize = 100_000;
/// Most bytes of scalars, aliases expanded.
pub const MAX_SCALAR_BYTES: usize = 4 << 20;

/// Where a node comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// Line and column of the text, both from 1.
    Text {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// The n-th `--set`.
    Override(usize),
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: At,
    /// The value.
    pub kind: Kind,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A scalar as text; a plain one (not quoted, no block) may mean a number, a boolean or nothing.
    Scalar {
        /// Its text.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: At,
    /// Its value.
    pub value: Node,
}

/// Why a text is no tree, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where.
    pub at: At,
    /// What, and the mend.
    pub message: String,
}

/// Reads `text` as one YAML document. The tree is there unless a syntax error or an exceeded budget ended the reading; of a
/// key that stands twice the first value counts, so that the rest can be judged too.
#[must_use]
pub fn parse(text: &str) -> (Option<Node>, Vec<Refusal>) {
    let start = At::Text { line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        return (None, vec![Refusal { at: start, message: format!("{} bytes; a scenario has at most {MAX_BYTES} (1 MiB)", text.len()) }]);
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let result = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(Refusal {
                at: At::Text { line: error.marker().line(), column: error.marker().col() + 1 },
                message: format!("not YAML: {}", error.info()),
            }),
        };
        if let Err(refusal) = result {
            builder.refusals.push(refusal);
            return (None, builder.refusals);
        }
    }
    if builder.root.is_none() {
        builder.refusals.push(Refusal { at: start, message: "empty; a scenario needs at least name, workload and load".to_owned() });
    }
    (builder.root, builder.refusals)
}

/// A mapping or list that is not closed yet.
struct Open {
    node: Node,
    /// The key whose value comes next.
    key: Option<(String, At)>,
    anchor: usize,
    cost: Cost,
}

/// What a finished subtree weighs, so that an alias is refused before it is copied.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    height: usize,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, Cost)>,
    root: Option<Node>,
    spent: Cost,
    refusals: Vec<Refusal>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        let at = At::Text { line: span.start.line(), column: span.start.col() + 1 };
        let (kind, anchor, tag) = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => return Ok(()),
            Event::DocumentStart(_) if self.root.is_none() => return Ok(()),
            Event::DocumentStart(_) => return refuse(at, "a second document; a file holds one scenario"),
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
            Event::Alias(id) => return self.alias(id, at),
            Event::Scalar(text, style, anchor, tag) => {
                (Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }, anchor, tag)
            }
            Event::SequenceStart(anchor, tag) => (Kind::List(Vec::new()), anchor, tag),
            Event::MappingStart(anchor, tag) => (Kind::Map(Vec::new()), anchor, tag),
        };
        if let Some(tag) = tag {
            self.refusals
                .push(Refusal { at, message: format!("tag {tag} has no meaning here; remove it, and quote the value if it is text") });
        }
        let bytes = if let Kind::Scalar { text, .. } = &kind { text.len() } else { 0 };
        let cost = Cost { nodes: 1, bytes, height: 1 };
        self.spend(cost, at)?;
        let node = Node { at, kind };
        if matches!(node.kind, Kind::Scalar { .. }) {
            return self.place(node, cost, anchor);
        }
        if self.awaits_key() {
            return refuse(at, "a key must be text; quote it, or indent what belongs to the key above");
        }
        self.open.push(Open { node, key: None, anchor, cost });
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.node.kind, Kind::Map(_)) && open.key.is_none())
    }

    fn spend(&mut self, cost: Cost, at: At) -> Result<(), Refusal> {
        self.spent.nodes += cost.nodes;
        self.spent.bytes += cost.bytes;
        if self.open.len() + cost.height > MAX_DEPTH {
            return refuse(at, &format!("nested deeper than {MAX_DEPTH} levels"));
        }
        if self.spent.nodes > MAX_NODES || self.spent.bytes > MAX_SCALAR_BYTES {
            let budget = format!("more than {MAX_NODES} values or {MAX_SCALAR_BYTES} bytes of them once aliases are expanded");
            return refuse(at, &format!("{budget}; write fewer or use fewer aliases"));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, at: At) -> Result<(), Refusal> {
        let Some((node, cost)) = self.anchors.get(&id) else {
            return refuse(at, "an alias inside the value it stands for");
        };
        let cost = *cost;
        if self.awaits_key() && !matches!(node.kind, Kind::Scalar { .. }) {
            return refuse(at, "a key must be text, this alias is a list or a mapping");
        }
        let node = node.clone();
        self.spend(cost, at)?;
        self.place(Node { at, ..node }, cost, 0)
    }

    fn close(&mut self) -> Result<(), Refusal> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        self.place(open.node, open.cost, open.anchor)
    }

    /// Puts a finished node where it belongs: as a key, a value, an item or the root.
    fn place(&mut self, node: Node, cost: Cost, anchor: usize) -> Result<(), Refusal> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.cost.nodes += cost.nodes;
        parent.cost.bytes += cost.bytes;
        parent.cost.height = parent.cost.height.max(cost.height + 1);
        match (&mut parent.node.kind, node.kind) {
            (Kind::List(items), kind) => items.push(Node { at: node.at, kind }),
            (Kind::Map(entries), kind) => match (parent.key.take(), kind) {
                (Some((key, at)), kind) => entries.push(Entry { key, at, value: Node { at: node.at, kind } }),
                (None, Kind::Scalar { text, .. }) => {
                    if let Some(Entry { at: At::Text { line, .. }, .. }) = entries.iter().find(|e| e.key == text) {
                        let message = format!("key `{text}` stands here a second time (first on line {line}); keep one");
                        self.refusals.push(Refusal { at: node.at, message });
                    }
                    parent.key = Some((text, node.at));
                }
                (None, _) => return refuse(node.at, "a key must be text"),
            },
            // Scalars are never opened.
            (Kind::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn refuse<T>(at: At, message: &str) -> Result<T, Refusal> {
    Err(Refusal { at, message: message.to_owned() })
}

impl Node {
    /// The value as JSON, plain scalars typed by YAML 1.2's core schema.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, plain: true } => plain_value(text),
            Kind::Scalar { text, plain: false } => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    map.entry(entry.key.clone()).or_insert_with(|| entry.value.to_json());
                }
                Value::Object(map)
            }
        }
    }

    /// The item or value one step below.
    #[must_use]
    pub fn child(&self, step: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == step).map(|e| &e.value),
            Kind::List(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            Kind::Scalar { .. } => None,
        }
    }

    /// Where `path` stands: the value, or as much of the way to it as exists.
    #[must_use]
    pub fn locate(&self, path: &[String]) -> At {
        let mut node = self;
        for step in path {
            let Some(next) = node.child(step) else { break };
            node = next;
        }
        node.at
    }

    /// Where the key at the end of `path` stands.
    #[must_use]
    pub fn locate_key(&self, path: &[String]) -> At {
        let Some((key, parents)) = path.split_last() else { return self.at };
        let parent = parents.iter().try_fold(self, |node, step| node.child(step));
        match parent.map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries.iter().find(|e| &e.key == key).map_or_else(|| self.locate(path), |e| e.at),
            _ => self.locate(path),
        }
    }
}

fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// A number of the core schema. A float without a fraction becomes an integer, so that `1e6` can be a number of rows.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    // Rust's parser also takes `inf` and `nan`, which are words here.
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        if let Some(n) = unsigned.parse::<u64>().map(Number::from).ok().or_else(|| unsigned.parse::<i64>().map(Number::from).ok()) {
            return Some(n);
        }
    }
    let float = text.parse::<f64>().ok().filter(|f| f.is_finite())?;
    // Beyond 2^53 a float is no exact integer.
    if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 {
        return Some(Number::from(float as i64));
    }
    Number::from_f64(float)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusals(text: &str) -> Vec<String> {
        let place = |at| if let At::Text { line, column } = at { format!("{line}:{column}") } else { String::new() };
        parse(text).1.into_iter().map(|r| format!("{}: {}", place(r.at), r.message)).collect()
    }

    #[test]
    fn plain_scalars_have_types_and_quoted_ones_are_text() {
        let text = "a: 1\nb: '1'\nc: 1.5\nd: 1e6\ne: true\nf: ~\ng: -7\nh: 18446744073709551615\ni: 200_000\nj: .inf\nk: 0x1f\nl: inf\nm: 5s\nn:\n";
        assert_eq!(
            parse(text).0.unwrap().to_json(),
            json!({"a": 1, "b": "1", "c": 1.5, "d": 1_000_000, "e": true, "f": null, "g": -7, "h": u64::MAX, "i": "200_000", "j": ".inf", "k": 31, "l": "inf", "m": "5s", "n": null})
        );
    }

    #[test]
    fn every_value_and_key_knows_its_place() {
        let tree = parse("a: 1\nb:\n  - x: 2\n    yy:   3\n").0.unwrap();
        let path = |p: &str| p.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(tree.locate(&path("b.0.yy")), At::Text { line: 4, column: 11 });
        assert_eq!(tree.locate_key(&path("b.0.yy")), At::Text { line: 4, column: 5 });
        assert_eq!(tree.locate(&path("b.0.zz")), At::Text { line: 3, column: 5 });
    }

    #[test]
    fn aliases_are_expanded_and_anchors_kept() {
        let tree = parse("a: &x {k: 1}\nb: *x\nc: [*x, *x]\n").0.unwrap();
        assert_eq!(tree.to_json(), json!({"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}, {"k": 1}]}));
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_is_expanded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        let found = refusals(&text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("more than 100000 values or 4194304 bytes of them once aliases are expanded"), "{found:?}");
        let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 20].join(", "));
        assert!(refusals(&long)[0].starts_with("2:"), "{:?}", refusals(&long));
        assert_eq!(refusals("a: &a [*a]\n"), ["1:8: an alias inside the value it stands for"]);
    }

    #[test]
    fn depth_ends_at_64() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(parse(&nested(64)).1, []);
        assert_eq!(refusals(&nested(65)), ["1:65: nested deeper than 64 levels"]);
        // An alias counts with its own height: 33 levels under 33.
        let text = format!("a: &a {}1{}\nb: {}*a{}\n", "[".repeat(32), "]".repeat(32), "[".repeat(32), "]".repeat(32));
        assert_eq!(refusals(&text), ["2:36: nested deeper than 64 levels"]);
        // Here the parser's own guard may be first; what matters is that the answer is a refusal, not an exhausted stack.
        assert_eq!(refusals(&"[".repeat(500_000)).len(), 1);
    }

    #[test]
    fn a_text_has_at_most_one_mebibyte() {
        let text = format!("a: 1\n#{}", "x".repeat(MAX_BYTES));
        assert_eq!(refusals(&text), ["1:1: 1048582 bytes; a scenario has at most 1048576 (1 MiB)"]);
    }

    #[test]
    fn what_would_be_dropped_silently_is_refused_all_at_once() {
        assert_eq!(
            refusals("a: 1\nb: !!str 2\na: 3\nc: {d: 1, d: 2}\n"),
            [
                "2:4: tag tag:yaml.org,2002:!str has no meaning here; remove it, and quote the value if it is text",
                "3:1: key `a` stands here a second time (first on line 1); keep one",
                "4:11: key `d` stands here a second time (first on line 4); keep one",
            ]
        );
        assert_eq!(refusals("a: 1\n---\nb: 2\n"), ["2:1: a second document; a file holds one scenario"]);
        assert_eq!(refusals("[a, b]: 1\n"), ["1:1: a key must be text; quote it, or indent what belongs to the key above"]);
        assert_eq!(refusals(""), ["1:1: empty; a scenario needs at least name, workload and load"]);
        assert!(refusals("a: [1\nb: 2\n")[0].contains("not YAML"));
    }
}
