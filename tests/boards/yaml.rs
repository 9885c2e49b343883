//! A configuration file as JSON, so that a test can change it.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

type Events<'a> = dyn Iterator<Item = Event<'a>> + 'a;

/// The one document of `text`; anchors are not known here.
pub(crate) fn to_json(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0);
    let began = |event: &Event<'_>| matches!(event, Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..));
    let first = events.by_ref().find(began).unwrap();
    value(first, &mut events)
}

fn value<'a>(event: Event<'a>, events: &mut Events<'a>) -> Value {
    match event {
        Event::Scalar(text, style, ..) => scalar(&text, style),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().unwrap() {
                    Event::SequenceEnd => return items.into(),
                    item => items.push(value(item, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                match events.next().unwrap() {
                    Event::MappingEnd => return map.into(),
                    Event::Scalar(key, ..) => {
                        let next = events.next().unwrap();
                        map.insert(key.into_owned(), value(next, events));
                    }
                    other => panic!("a key that is no text: {other:?}"),
                }
            }
        }
        other => panic!("{other:?} is not known here"),
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match text {
        "true" | "false" if style == ScalarStyle::Plain => (text == "true").into(),
        _ if style == ScalarStyle::Plain && text.parse::<i64>().is_ok() => text.parse::<i64>().unwrap().into(),
        _ => text.into(),
    }
}
