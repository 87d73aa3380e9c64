//! A selector in the order of its evaluation: operands before their operator, as on a pocket calculator.
//!
//! A flat list, so that neither evaluating nor dropping a selector recurses, however long its text. Spec: Jakarta
//! Messaging 3.1 §3.8.1.

use super::like::Pattern;
use super::value::{Arithmetic, Comparison, Number, Value, and, or};
use crate::publication::Publication;

/// The steps, and how many values they pile up.
#[derive(Clone, Debug)]
pub(super) struct Program {
    steps: Box<[Step]>,
    height_max: usize,
}

/// One step: takes its operands from the pile and leaves its result there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Bool(bool),
    Number(Number),
    Text(Box<str>),
    Header(Header),
    Not,
    /// The left side of AND: if it is false, so is the AND, and the steps up to this one are left out.
    AndThen(usize),
    And,
    /// The left side of OR: if it is true, so is the OR.
    OrElse(usize),
    Or,
    Compare(Comparison),
    Calculate(Arithmetic),
    /// A sign of plus makes a number too.
    Plus,
    Minus,
    Between,
    /// Sorted.
    In(Box<[Box<str>]>),
    Like(Box<Pattern>),
    IsNull,
}

/// What an identifier names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Header {
    User(Box<str>),
    ContentType,
    CorrelationId,
    Destination,
    ReplyTo,
}

impl Header {
    pub(super) fn new(name: Box<str>) -> Self {
        match &*name {
            "content-type" => Self::ContentType,
            "correlation-id" | "JMSCorrelationID" => Self::CorrelationId,
            "destination" | "JMSDestination" => Self::Destination,
            "reply-to" | "JMSReplyTo" => Self::ReplyTo,
            _ => Self::User(name),
        }
    }

    fn text<'a>(&self, publication: &'a Publication) -> Option<&'a str> {
        let properties = publication.properties.as_deref();
        match self {
            Self::Destination => Some(publication.topic.as_str()),
            // WIRE §7: the UTF-8 flag alone is a type too.
            Self::ContentType => properties
                .and_then(|properties| properties.content_type.as_deref())
                .or_else(|| publication.is_text.then_some("text/plain;charset=utf-8")),
            Self::CorrelationId => simdutf8::basic::from_utf8(properties?.correlation_data.as_deref()?).ok(),
            Self::ReplyTo => properties?.response_topic.as_ref().map(|topic| topic.as_str()),
            Self::User(name) => {
                properties?.user.iter().find(|(seen, _)| seen == name).map(|(_, value)| &**value)
            }
        }
    }
}

impl Step {
    /// By how many values the pile grows (first) and shrinks.
    fn effect(&self) -> (usize, usize) {
        match self {
            Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Header(_) => (1, 0),
            Self::And | Self::Or | Self::Compare(_) | Self::Calculate(_) => (0, 1),
            Self::Between => (0, 2),
            _ => (0, 0),
        }
    }
}

impl Program {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        let mut height = 0_usize;
        let mut height_max = 0;
        for step in &steps {
            let (grown, shrunk) = step.effect();
            height = (height + grown).saturating_sub(shrunk);
            height_max = height.max(height_max);
        }
        Self { steps: steps.into(), height_max }
    }

    /// What it says of a message; `None` is unknown.
    pub(super) fn run(&self, publication: &Publication) -> Option<bool> {
        if self.height_max <= HEIGHT_TYPICAL {
            self.run_on(&mut Pile { values: &mut [Value::Null; HEIGHT_TYPICAL], height: 0 }, publication)
        } else {
            let mut values = vec![Value::Null; self.height_max];
            self.run_on(&mut Pile { values: &mut values, height: 0 }, publication)
        }
    }

    fn run_on<'a>(&'a self, pile: &mut Pile<'_, 'a>, publication: &'a Publication) -> Option<bool> {
        let mut next = 0;
        while let Some(step) = self.steps.get(next) {
            next += 1;
            let result = match step {
                Step::Bool(is_true) => Value::Bool(*is_true),
                Step::Number(number) => Value::Number(*number),
                Step::Text(text) => Value::Text(text),
                Step::Header(header) => header.text(publication).map_or(Value::Null, Value::Header),
                Step::AndThen(end) => {
                    let left = pile.pop().condition();
                    if left == Some(false) {
                        next = *end;
                    }
                    Value::from_condition(left)
                }
                Step::OrElse(end) => {
                    let left = pile.pop().condition();
                    if left == Some(true) {
                        next = *end;
                    }
                    Value::from_condition(left)
                }
                operator => apply(operator, pile),
            };
            pile.push(result);
        }
        pile.pop().condition()
    }
}

/// An operator on what lies on the pile, its last operand on top.
fn apply<'a>(operator: &Step, pile: &mut Pile<'_, 'a>) -> Value<'a> {
    let last = pile.pop();
    let condition = match operator {
        Step::Not => last.condition().map(|is_true| !is_true),
        Step::And => and(pile.pop().condition(), last.condition()),
        Step::Or => or(pile.pop().condition(), last.condition()),
        Step::Compare(comparison) => pile.pop().compare(*comparison, last),
        Step::Between => {
            let low = pile.pop();
            pile.pop().is_between(low, last)
        }
        Step::In(texts) => last.text().map(|text| texts.binary_search_by(|one| (**one).cmp(text)).is_ok()),
        Step::Like(pattern) => last.text().map(|text| pattern.matches(text)),
        Step::IsNull => Some(last.is_null()),
        Step::Plus => return Value::from_number(last.number()),
        Step::Minus => return Value::from_number(last.number().and_then(Number::negated)),
        Step::Calculate(operation) => {
            let result = match (pile.pop().number(), last.number()) {
                (Some(one), Some(other)) => one.calculate(*operation, other),
                _ => None,
            };
            return Value::from_number(result);
        }
        // `run_on` has them.
        Step::Bool(_)
        | Step::Number(_)
        | Step::Text(_)
        | Step::Header(_)
        | Step::AndThen(_)
        | Step::OrElse(_) => None,
    };
    Value::from_condition(condition)
}

/// The values on which an operator waits.
#[derive(Debug)]
struct Pile<'p, 'a> {
    values: &'p mut [Value<'a>],
    height: usize,
}

impl<'a> Pile<'_, 'a> {
    /// There is room: `height_max` of the program says how much.
    fn push(&mut self, value: Value<'a>) {
        if let Some(place) = self.values.get_mut(self.height) {
            *place = value;
            self.height += 1;
        }
    }

    fn pop(&mut self) -> Value<'a> {
        self.height = self.height.saturating_sub(1);
        self.values.get(self.height).copied().unwrap_or(Value::Null)
    }
}

/// What a selector without much nesting needs: then nothing is allocated.
const HEIGHT_TYPICAL: usize = 16;
