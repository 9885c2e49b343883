//! Puts every mutant of a file into its text, each behind a question that only one process answers with yes:
//! `a < b` becomes `(if crate::mutant::on(7) { a <= b } else { a < b })`.
//!
//! Which mutants there are is cargo-mutants' word; here only their places in the syntax are found.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use anyhow::{Context as _, Result};
use proc_macro2::LineColumn;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::list::Mutant;

/// What the tree's `lib.rs` gets in addition.
pub const QUESTION: &str = r#"
mod mutant {
    pub(crate) fn on(number: u32) -> bool {
        static ACTIVE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let read = || std::env::var("BATCHSQL_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
        *ACTIVE.get_or_init(read) == number
    }
}
"#;

/// A text with mutants in it.
pub struct Embedded {
    pub text: String,
    /// Where the mutants are, innermost last: what a compiler's complaint there is about.
    pub places: Vec<(Range<usize>, Vec<u32>)>,
}

/// Something to be put into the text at a byte.
struct Insertion {
    at: usize,
    /// Ends come before beginnings; of ends the inner first, of beginnings the outer.
    order: (u8, isize),
    text: String,
    /// The mutants that are spelled out in it, with their bytes of it.
    mutants: Vec<(Range<usize>, u32)>,
    /// The mutants whose place begins or ends here.
    group: Vec<u32>,
}

/// Puts `mutants` into `text`; those that have no place in it are given back by number.
pub fn embed(text: &str, mutants: &[&Mutant]) -> Result<(Embedded, Vec<u32>)> {
    let lines = Lines::new(text);
    let mut syntax = Syntax::new(&lines);
    syntax.visit_file(&syn::parse_file(text)?);
    let mut insertions = Vec::new();
    let mut nowhere = Vec::new();
    let mut choices: BTreeMap<(usize, isize), (Range<usize>, Vec<(u32, String)>)> = BTreeMap::new();
    let mut returns: BTreeMap<(usize, usize), Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        let place = lines.range(&mutant.span)?;
        let Some(change) = syntax.change(text, mutant, &place) else {
            nowhere.push(mutant.number);
            continue;
        };
        match change {
            Change::Return => returns.entry((place.start, place.end)).or_default().push(mutant),
            Change::Guard(at, guarded) => insertions.extend(guard(mutant.number, at, guarded)),
            Change::Instead(whole, other) => {
                let entry = choices.entry((whole.start, -(whole.len() as isize))).or_insert_with(|| (whole, Vec::new()));
                entry.1.push((mutant.number, other));
            }
        }
    }
    returns.into_iter().for_each(|((start, end), mutants)| insertions.extend(returning(&(start..end), &mutants)));
    choices.into_values().for_each(|(whole, others)| insertions.extend(choice(&whole, &others)));
    Ok((weave(text, insertions), nowhere))
}

enum Change {
    /// The function returns at once.
    Return,
    /// The arm is passed by: its pattern's end, and its guard if it has one.
    Guard(usize, Option<Range<usize>>),
    /// The expression there is another.
    Instead(Range<usize>, String),
}

fn returning(body: &Range<usize>, mutants: &[&Mutant]) -> [Insertion; 2] {
    let (mut text, mut places) = (String::new(), Vec::new());
    for mutant in mutants {
        let begin = text.len();
        text.push_str(&format!("if crate::mutant::on({}) {{ return {}; }} ", mutant.number, mutant.replacement));
        places.push((begin..text.len(), mutant.number));
    }
    let group: Vec<u32> = mutants.iter().map(|mutant| mutant.number).collect();
    [
        Insertion { at: body.start, order: (1, isize::MIN), text, mutants: places, group: group.clone() },
        Insertion { at: body.end, order: (0, isize::MAX), text: String::new(), mutants: Vec::new(), group },
    ]
}

fn guard(number: u32, at: usize, guarded: Option<Range<usize>>) -> Vec<Insertion> {
    let insertion = |at, order, text: String| {
        let mutants = vec![(0..text.len(), number)];
        Insertion { at, order, text, mutants, group: Vec::new() }
    };
    match guarded {
        None => vec![insertion(at, (1, isize::MIN), format!(" if !crate::mutant::on({number})"))],
        Some(guard) => vec![
            insertion(guard.start, (1, isize::MIN), format!("!crate::mutant::on({number}) && (")),
            insertion(guard.end, (0, isize::MAX), ")".to_owned()),
        ],
    }
}

fn choice(whole: &Range<usize>, others: &[(u32, String)]) -> [Insertion; 2] {
    let mut text = String::from("(");
    let mut mutants = Vec::new();
    for (number, other) in others {
        text.push_str(&format!("if crate::mutant::on({number}) {{ "));
        mutants.push((text.len()..text.len() + other.len(), *number));
        text.push_str(other);
        text.push_str(" } else ");
    }
    text.push_str("{ ");
    let group: Vec<u32> = others.iter().map(|(number, _)| *number).collect();
    let length = whole.len() as isize;
    [
        Insertion { at: whole.start, order: (1, -length), text, mutants, group: group.clone() },
        Insertion { at: whole.end, order: (0, length), text: " })".to_owned(), mutants: Vec::new(), group },
    ]
}

/// Writes the text with its insertions, noting where each mutant comes to lie.
fn weave(text: &str, mut insertions: Vec<Insertion>) -> Embedded {
    insertions.sort_by_key(|insertion| (insertion.at, insertion.order));
    let mut woven = String::with_capacity(text.len() * 2);
    let (mut places, mut open) = (Vec::new(), HashMap::new());
    let mut done = 0;
    for Insertion { at, text: new, mutants, group, .. } in insertions {
        woven.push_str(&text[done..at]);
        done = at;
        let begin = woven.len();
        places.extend(mutants.into_iter().map(|(range, number)| (begin + range.start..begin + range.end, vec![number])));
        woven.push_str(&new);
        match group.first().map(|first| (open.remove(first), *first)) {
            Some((Some(opened), _)) => places.push((opened..woven.len(), group)),
            Some((None, first)) => drop(open.insert(first, begin)),
            None => {}
        }
    }
    woven.push_str(&text[done..]);
    places.sort_by_key(|(range, _)| std::cmp::Reverse(range.len()));
    Embedded { text: woven, places }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The byte of a line (from 1) and a column in characters (from 0).
    fn byte(&self, line: usize, column: usize) -> Option<usize> {
        let start = *self.starts.get(line.checked_sub(1)?)?;
        let mut characters = self.text[start..].char_indices().map(|(at, _)| start + at);
        characters.nth(column).or(Some(self.text.len()))
    }

    fn of(&self, span: proc_macro2::Span) -> Range<usize> {
        let byte = |at: LineColumn| self.byte(at.line, at.column).unwrap_or_default();
        byte(span.start())..byte(span.end())
    }

    fn range(&self, span: &crate::list::Span) -> Result<Range<usize>> {
        let byte = |at: &crate::list::Position| self.byte(at.line, at.column - 1).context("a mutant lies outside of its file");
        Ok(byte(&span.start)?..byte(&span.end)?)
    }
}

/// What of the syntax mutants are about, by the byte at which cargo-mutants says they begin.
struct Syntax<'a> {
    lines: &'a Lines<'a>,
    /// Operators: their expression.
    operations: HashMap<usize, Range<usize>>,
    /// Arms: the end of their pattern, their guard.
    arms: HashMap<usize, (usize, Option<Range<usize>>)>,
    /// Fields: the expression that lists them.
    fields: HashMap<usize, Range<usize>>,
}

impl<'a> Syntax<'a> {
    fn new(lines: &'a Lines<'a>) -> Self {
        Self { lines, operations: HashMap::new(), arms: HashMap::new(), fields: HashMap::new() }
    }

    fn change(&self, text: &str, mutant: &Mutant, place: &Range<usize>) -> Option<Change> {
        let without = |whole: &Range<usize>, from: usize, to: usize, new: &str| {
            Change::Instead(whole.clone(), format!("{}{new}{}", &text[whole.start..from], &text[to..whole.end]))
        };
        match mutant.genre.as_str() {
            "FnValue" => Some(Change::Return),
            "MatchArmGuard" => Some(Change::Instead(place.clone(), mutant.replacement.clone())),
            "BinaryOperator" | "UnaryOperator" => {
                let whole = self.operations.get(&place.start)?;
                Some(without(whole, place.start, place.end, &mutant.replacement))
            }
            "MatchArm" => self.arms.get(&place.start).map(|(at, guard)| Change::Guard(*at, guard.clone())),
            "StructField" => {
                let whole = self.fields.get(&place.start)?;
                let comma = text[place.end..].starts_with(',');
                Some(without(whole, place.start, place.end + usize::from(comma), ""))
            }
            _ => None,
        }
    }
}

/// Whether an expression binds names, which it cannot in parentheses.
fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Syntax<'_> {
    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        if !binds(&node.left) && !binds(&node.right) {
            self.operations.insert(self.lines.of(node.op.span()).start, self.lines.of(node.span()));
        }
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        self.operations.insert(self.lines.of(node.op.span()).start, self.lines.of(node.span()));
        visit::visit_expr_unary(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let (pattern, guard) = match &node.pat {
            syn::Pat::Guard(guarded) => (&*guarded.pat, Some(&*guarded.guard)),
            pattern => (pattern, None),
        };
        if !guard.is_some_and(binds) {
            let of = (self.lines.of(pattern.span()).end, guard.map(|guard| self.lines.of(guard.span())));
            self.arms.insert(self.lines.of(node.span()).start, of);
        }
        visit::visit_arm(self, node);
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        for field in &node.fields {
            self.fields.insert(self.lines.of(field.span()).start, self.lines.of(node.span()));
        }
        visit::visit_expr_struct(self, node);
    }
}
