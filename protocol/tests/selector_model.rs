//! Random selectors, written as text and evaluated a second time: as a tree, by recursion, in the words of the standard.
//! Jakarta Messaging 3.1 §3.8.1.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_protocol::publication::{Properties, Publication};
use tidegate_protocol::selector::Selector;
use tidegate_protocol::topic::{Topic, TopicLimits};

/// Of a number; small, so that nothing overflows.
#[derive(Clone, Debug)]
enum Sum {
    Literal(i32),
    Header(u8),
    Minus(Box<Self>),
    Calculate(Box<Self>, char, Box<Self>),
}

#[derive(Clone, Debug)]
enum Condition {
    Literal(bool),
    Header(u8),
    Compare(Sum, &'static str, Sum),
    Text(u8, bool, String),
    Between(Sum, bool, Sum, Sum),
    In(u8, bool, Vec<String>),
    Like(u8, bool, String),
    IsNull(u8, bool),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

/// Headers are `h0` to `h3`.
type Headers = [Option<String>; 4];

fn value(headers: &Headers, name: u8) -> Option<&str> {
    headers[usize::from(name)].as_deref()
}

impl Sum {
    fn write(&self) -> String {
        match self {
            Self::Literal(value) => value.to_string(),
            Self::Header(name) => format!("h{name}"),
            Self::Minus(inner) => format!("-({})", inner.write()),
            Self::Calculate(left, sign, right) => format!("({} {sign} {})", left.write(), right.write()),
        }
    }

    fn evaluate(&self, headers: &Headers) -> Option<i64> {
        match self {
            Self::Literal(value) => Some(i64::from(*value)),
            Self::Header(name) => value(headers, *name)?.parse().ok(),
            Self::Minus(inner) => Some(-inner.evaluate(headers)?),
            Self::Calculate(left, sign, right) => {
                let (left, right) = (left.evaluate(headers)?, right.evaluate(headers)?);
                match sign {
                    '+' => left.checked_add(right),
                    '-' => left.checked_sub(right),
                    '*' => left.checked_mul(right),
                    _ => left.checked_div(right),
                }
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn negated(is_negated: bool) -> &'static str {
    if is_negated { " NOT" } else { "" }
}

impl Condition {
    /// Parentheses only where the order of operators needs them: `level` is that of the operator around.
    fn write(&self, level: u8) -> String {
        let (own, text) = match self {
            Self::Literal(is_true) => (9, is_true.to_string()),
            Self::Header(name) => (9, format!("h{name}")),
            Self::Compare(left, sign, right) => (3, format!("{} {sign} {}", left.write(), right.write())),
            Self::Text(name, is_equal, text) => {
                (3, format!("h{name} {} {}", if *is_equal { "=" } else { "<>" }, quoted(text)))
            }
            Self::Between(sum, not, low, high) => {
                let (sum, low, high) = (sum.write(), low.write(), high.write());
                (3, format!("{sum}{} BETWEEN {low} AND {high}", negated(*not)))
            }
            Self::In(name, not, texts) => {
                let list: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                (3, format!("h{name}{} IN ({})", negated(*not), list.join(", ")))
            }
            Self::Like(name, not, pattern) => {
                (3, format!("h{name}{} LIKE {} ESCAPE '!'", negated(*not), quoted(pattern)))
            }
            Self::IsNull(name, not) => (3, format!("h{name} IS{} NULL", negated(*not))),
            Self::Not(inner) => (2, format!("NOT {}", inner.write(2))),
            Self::And(left, right) => (1, format!("{} AND {}", left.write(1), right.write(2))),
            Self::Or(left, right) => (0, format!("{} OR {}", left.write(0), right.write(1))),
        };
        if own < level { format!("({text})") } else { text }
    }

    fn evaluate(&self, headers: &Headers) -> Option<bool> {
        match self {
            Self::Literal(is_true) => Some(*is_true),
            Self::Header(name) => value(headers, *name)?.parse().ok(),
            Self::Compare(left, sign, right) => {
                let numbers = (left.evaluate(headers), right.evaluate(headers));
                // Two headers without a type are equal as texts too.
                if let (Sum::Header(one), Sum::Header(other), "=" | "<>") = (left, right, *sign)
                    && !matches!(numbers, (Some(_), Some(_)))
                {
                    return Some((value(headers, *one)? == value(headers, *other)?) == (*sign == "="));
                }
                let (left, right) = (numbers.0?, numbers.1?);
                Some(match *sign {
                    "=" => left == right,
                    "<>" => left != right,
                    "<" => left < right,
                    "<=" => left <= right,
                    ">" => left > right,
                    _ => left >= right,
                })
            }
            Self::Text(name, is_equal, text) => Some((value(headers, *name)? == text) == *is_equal),
            Self::Between(sum, not, low, high) => {
                let (sum, low, high) = (sum.evaluate(headers), low.evaluate(headers), high.evaluate(headers));
                let at_least = sum.zip(low).map(|(sum, low)| sum >= low);
                let at_most = sum.zip(high).map(|(sum, high)| sum <= high);
                Some(both(at_least, at_most)? != *not)
            }
            Self::In(name, not, texts) => {
                let text = value(headers, *name)?;
                Some(texts.iter().any(|one| one == text) != *not)
            }
            Self::Like(name, not, pattern) => {
                let text: Vec<char> = value(headers, *name)?.chars().collect();
                let pattern: Vec<char> = pattern.chars().collect();
                Some(is_like(&pattern, &text) != *not)
            }
            Self::IsNull(name, not) => Some(value(headers, *name).is_none() != *not),
            Self::Not(inner) => Some(!inner.evaluate(headers)?),
            Self::And(left, right) => both(left.evaluate(headers), right.evaluate(headers)),
            Self::Or(left, right) => {
                let not = |side: &Self| side.evaluate(headers).map(|is_true| !is_true);
                Some(!both(not(left), not(right))?)
            }
        }
    }
}

fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    if one == Some(false) || other == Some(false) {
        return Some(false);
    }
    Some(one? && other?)
}

fn is_like(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['!', wanted, pattern @ ..], [c, text @ ..]) => wanted == c && is_like(pattern, text),
        (['%', behind @ ..], _) => {
            is_like(behind, text) || text.split_first().is_some_and(|(_, text)| is_like(pattern, text))
        }
        (['_', pattern @ ..], [_, text @ ..]) => is_like(pattern, text),
        ([wanted, pattern @ ..], [c, text @ ..]) if *wanted != '!' => wanted == c && is_like(pattern, text),
        _ => false,
    }
}

fn sums() -> impl Strategy<Value = Sum> {
    let leaf = prop_oneof![(-3..4).prop_map(Sum::Literal), (0..4_u8).prop_map(Sum::Header)];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|sum| Sum::Minus(Box::new(sum))),
            (inner.clone(), prop_oneof![Just('+'), Just('-'), Just('*'), Just('/')], inner)
                .prop_map(|(left, sign, right)| Sum::Calculate(Box::new(left), sign, Box::new(right))),
        ]
    })
}

/// Few letters, so that texts and patterns often match.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[-]?[0-3]", "[abü']{0,5}", Just("true".to_owned()), Just("false".to_owned())]
}

fn patterns() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        3 => prop_oneof![Just("a"), Just("b"), Just("ü"), Just("'"), Just("1")],
        2 => Just("%"),
        1 => Just("_"),
        1 => prop_oneof![Just("!%"), Just("!_"), Just("!!")],
    ];
    prop::collection::vec(step, 0..7).prop_map(|steps| steps.concat())
}

fn conditions() -> impl Strategy<Value = Condition> {
    let name = 0..4_u8;
    let sign = prop_oneof![Just("="), Just("<>"), Just("<"), Just("<="), Just(">"), Just(">=")];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Condition::Literal),
        name.clone().prop_map(Condition::Header),
        (sums(), sign, sums()).prop_map(|(left, sign, right)| Condition::Compare(left, sign, right)),
        (name.clone(), any::<bool>(), texts()).prop_map(|(name, is, text)| Condition::Text(name, is, text)),
        (sums(), any::<bool>(), sums(), sums())
            .prop_map(|(sum, not, low, high)| Condition::Between(sum, not, low, high)),
        (name.clone(), any::<bool>(), prop::collection::vec(texts(), 1..4))
            .prop_map(|(name, not, texts)| Condition::In(name, not, texts)),
        (name.clone(), any::<bool>(), patterns())
            .prop_map(|(name, not, pattern)| Condition::Like(name, not, pattern)),
        (name, any::<bool>()).prop_map(|(name, not)| Condition::IsNull(name, not)),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
            (inner.clone(), inner.clone())
                .prop_map(|(left, right)| Condition::And(Box::new(left), Box::new(right))),
            (inner.clone(), inner).prop_map(|(left, right)| Condition::Or(Box::new(left), Box::new(right))),
        ]
    })
}

fn publication(headers: &Headers) -> Publication {
    let mut publication = Publication::new(Topic::parse("a", &TopicLimits::STANDARD).unwrap(), Bytes::new());
    let named = headers.iter().zip(["h0", "h1", "h2", "h3"]);
    let user = named.filter_map(|(value, name)| Some((name.into(), value.as_deref()?.into()))).collect();
    publication.properties = Some(Box::new(Properties { user, ..Properties::default() }));
    publication
}

proptest! {
    #[test]
    fn evaluates_as_the_words_of_the_standard_do(
        condition in conditions(),
        headers in prop::array::uniform4(prop::option::weighted(0.8, texts())),
    ) {
        let text = condition.write(0);
        let publication = publication(&headers);
        let expected = condition.evaluate(&headers);
        prop_assert_eq!(Selector::parse(&text).unwrap().matches(&publication), expected == Some(true), "{}", text);
        let not = format!("NOT ({text})");
        prop_assert_eq!(Selector::parse(&not).unwrap().matches(&publication), expected == Some(false), "{}", not);
    }

    #[test]
    fn any_text_is_a_selector_or_an_error_within_it(text in "[ab1.'\"()<>=+*/, -]{0,30}|\\PC{0,30}") {
        match Selector::parse(&text) {
            Ok(selector) => {
                let _ = selector.matches(&publication(&Headers::default()));
            }
            Err(error) => prop_assert!((1..=text.chars().count() + 1).contains(&error.position), "{}", error),
        }
    }
}
