//! Values while a selector is evaluated: their types, their order and their arithmetic. Knows no operators' text.
//! Spec: Jakarta Messaging 3.1 §3.8.1.1, §3.8.1.2; the types that a header's text gets are those of `selector.rs`.

use std::cmp::Ordering;

/// A value. As a condition, `Null` is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    /// A string literal.
    Text(&'a str),
    /// Of a header: what it is beside says what type it has.
    Header(&'a str),
}

/// A number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Exact(i64),
    /// Finite.
    Approximate(f64),
}

/// One of the six comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// One of the four operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl<'a> Value<'a> {
    /// Unknown becomes NULL.
    pub(super) fn from_condition(condition: Option<bool>) -> Self {
        condition.map_or(Self::Null, Self::Bool)
    }

    pub(super) fn from_number(number: Option<Number>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }

    /// As a condition; `None` is unknown.
    pub(super) fn condition(self) -> Option<bool> {
        match self {
            Self::Bool(is_true) => Some(is_true),
            Self::Header(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::Header(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    pub(super) fn number(self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(number),
            Self::Header(text) => Number::read(text),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) | Self::Header(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether both sides are alike; `None`: one is NULL, or they are of unlike types.
    fn is_equal(self, other: Self) -> Option<bool> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Bool(_), _) | (_, Self::Bool(_)) => Some(self.condition()? == other.condition()?),
            (Self::Text(_), _) | (_, Self::Text(_)) => Some(self.text()? == other.text()?),
            (Self::Number(_), _) | (_, Self::Number(_)) => {
                Some(self.number()?.order(other.number()?)?.is_eq())
            }
            (Self::Header(one), Self::Header(other)) => {
                Some(match (Number::read(one), Number::read(other)) {
                    (Some(one), Some(other)) => one.order(other)?.is_eq(),
                    _ => one == other,
                })
            }
        }
    }

    pub(super) fn compare(self, comparison: Comparison, other: Self) -> Option<bool> {
        match comparison {
            Comparison::Equal => return self.is_equal(other),
            Comparison::Unequal => return self.is_equal(other).map(|is_equal| !is_equal),
            _ => {}
        }
        let order = self.number()?.order(other.number()?)?;
        Some(match comparison {
            Comparison::Less => order.is_lt(),
            Comparison::LessEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            _ => order.is_ge(),
        })
    }

    /// The same as `self >= low AND self <= high`.
    pub(super) fn is_between(self, low: Self, high: Self) -> Option<bool> {
        let is_above = self.compare(Comparison::GreaterEqual, low);
        and(is_above, self.compare(Comparison::LessEqual, high))
    }
}

/// §3.8.1.2: unknown, but false with a false.
pub(super) fn and(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// §3.8.1.2: unknown, but true with a true.
pub(super) fn or(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

impl Number {
    /// A number in decimal digits, perhaps with a sign, a point and an exponent.
    fn read(text: &str) -> Option<Self> {
        // Most headers are no numbers; and the standard library would read `inf` and `nan`.
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        if let Ok(exact) = text.parse() {
            return Some(Self::Exact(exact));
        }
        Self::finite(text.parse().ok()?)
    }

    fn finite(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self::Approximate(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "Java's numeric promotion (JLS §5.6) rounds so")]
    fn approximate(self) -> f64 {
        match self {
            Self::Exact(value) => value as f64,
            Self::Approximate(value) => value,
        }
    }

    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => Some(one.cmp(&other)),
            _ => self.approximate().partial_cmp(&other.approximate()),
        }
    }

    pub(super) fn negated(self) -> Option<Self> {
        match self {
            Self::Exact(value) => value.checked_neg().map(Self::Exact),
            Self::Approximate(value) => Some(Self::Approximate(-value)),
        }
    }

    /// `None`: a division by zero, or the result does not fit.
    pub(super) fn calculate(self, operation: Arithmetic, other: Self) -> Option<Self> {
        if let (Self::Exact(one), Self::Exact(other)) = (self, other) {
            let result = match operation {
                Arithmetic::Add => one.checked_add(other),
                Arithmetic::Subtract => one.checked_sub(other),
                Arithmetic::Multiply => one.checked_mul(other),
                Arithmetic::Divide => one.checked_div(other),
            };
            return result.map(Self::Exact);
        }
        let (one, other) = (self.approximate(), other.approximate());
        Self::finite(match operation {
            Arithmetic::Add => one + other,
            Arithmetic::Subtract => one - other,
            Arithmetic::Multiply => one * other,
            Arithmetic::Divide => one / other,
        })
    }
}
