//! The grammar of selectors: words to the steps of a program. Recursive descent, at most as deep as
//! [`Selector::NESTING_MAX`]. Spec: Jakarta Messaging 3.1 §3.8.1.1.
//!
//! ```text
//! condition  = conjunct *("OR" conjunct)
//! conjunct   = inversion *("AND" inversion)
//! inversion  = "NOT" inversion | predicate
//! predicate  = sum [("=" | "<>" | "<" | "<=" | ">" | ">=") sum]
//!            | sum ["NOT"] "BETWEEN" sum "AND" sum
//!            | name ["NOT"] "IN" "(" text *("," text) ")"
//!            | name ["NOT"] "LIKE" text ["ESCAPE" text]
//!            | name "IS" ["NOT"] "NULL"
//! sum        = product *(("+" | "-") product)
//! product    = factor *(("*" | "/") factor)
//! factor     = ("+" | "-") factor | name | literal | "(" condition ")"
//! ```

use super::lexer::{Keyword, Lexer, TOO_LARGE, Token};
use super::like::Pattern;
use super::program::{Header, Program, Step};
use super::value::{Arithmetic, Comparison, Number};
use super::{Selector, SelectorError};

/// Reads one selector.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The word ahead.
    token: Token,
    /// Of the word ahead.
    position: usize,
    nesting: usize,
    steps: Vec<Step>,
}

/// A part of the selector that is read.
#[derive(Clone, Copy, Debug)]
struct Operand {
    kind: Kind,
    /// Where it began.
    position: usize,
}

/// What type a part can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Condition,
    Number,
    Text,
    /// The name of a header, which may have any type.
    Name,
}

type Parsed = Result<Operand, SelectorError>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, SelectorError> {
        let mut lexer = Lexer::new(text);
        let (token, position) = lexer.token()?;
        Ok(Self { lexer, token, position, nesting: 0, steps: Vec::new() })
    }

    pub(super) fn into_program(mut self) -> Result<Program, SelectorError> {
        let operand = self.condition()?;
        if self.token != Token::End {
            return Err(self.error(match self.token {
                Token::Close => "a parenthesis closes that never opened",
                _ => "an operator or the end is missing",
            }));
        }
        operand.expect_condition()?;
        Ok(Program::new(self.steps))
    }

    fn condition(&mut self) -> Parsed {
        let mut left = self.conjunct()?;
        while self.take(Keyword::Or)? {
            let skip = self.steps.len();
            self.steps.push(Step::OrElse(skip));
            left.expect_condition()?;
            self.conjunct()?.expect_condition()?;
            self.steps.push(Step::Or);
            self.end_skip(skip, Step::OrElse);
            left.kind = Kind::Condition;
        }
        Ok(left)
    }

    fn conjunct(&mut self) -> Parsed {
        let mut left = self.inversion()?;
        while self.take(Keyword::And)? {
            let skip = self.steps.len();
            self.steps.push(Step::AndThen(skip));
            left.expect_condition()?;
            self.inversion()?.expect_condition()?;
            self.steps.push(Step::And);
            self.end_skip(skip, Step::AndThen);
            left.kind = Kind::Condition;
        }
        Ok(left)
    }

    /// Lets the step at `place` jump to here.
    fn end_skip(&mut self, place: usize, step: fn(usize) -> Step) {
        let end = self.steps.len();
        if let Some(skip) = self.steps.get_mut(place) {
            *skip = step(end);
        }
    }

    fn inversion(&mut self) -> Parsed {
        let position = self.position;
        if !self.take(Keyword::Not)? {
            return self.predicate();
        }
        self.nest(position)?;
        self.inversion()?.expect_condition()?;
        self.nesting -= 1;
        self.steps.push(Step::Not);
        Ok(Operand { kind: Kind::Condition, position })
    }

    fn predicate(&mut self) -> Parsed {
        let left = self.sum()?;
        let comparison = match self.token {
            Token::Equal => Comparison::Equal,
            Token::Unequal => Comparison::Unequal,
            Token::Less => Comparison::Less,
            Token::LessEqual => Comparison::LessEqual,
            Token::Greater => Comparison::Greater,
            Token::GreaterEqual => Comparison::GreaterEqual,
            Token::Keyword(Keyword::Not | Keyword::Between | Keyword::In | Keyword::Like | Keyword::Is) => {
                return self.word_predicate(left);
            }
            _ => return Ok(left),
        };
        self.advance()?;
        let right = self.sum()?;
        // §3.8.1.1: "String and Boolean comparison is restricted to = and <>".
        if !matches!(comparison, Comparison::Equal | Comparison::Unequal) {
            left.expect_ordered()?;
            right.expect_ordered()?;
        }
        self.steps.push(Step::Compare(comparison));
        Ok(Operand { kind: Kind::Condition, ..left })
    }

    /// What a word tells of `left`, the word being ahead.
    fn word_predicate(&mut self, left: Operand) -> Parsed {
        let mut is_negated = self.take(Keyword::Not)?;
        let step = match self.token {
            Token::Keyword(Keyword::Between) => {
                self.advance()?;
                left.expect_ordered()?;
                self.sum()?.expect_ordered()?;
                if !self.take(Keyword::And)? {
                    return Err(self.error("BETWEEN needs AND and an upper bound"));
                }
                self.sum()?.expect_ordered()?;
                Step::Between
            }
            Token::Keyword(Keyword::In) => {
                self.advance()?;
                left.expect_name()?;
                Step::In(self.texts()?)
            }
            Token::Keyword(Keyword::Like) => {
                self.advance()?;
                left.expect_name()?;
                Step::Like(Box::new(self.pattern()?))
            }
            Token::Keyword(Keyword::Is) if !is_negated => {
                self.advance()?;
                left.expect_name()?;
                is_negated = self.take(Keyword::Not)?;
                if !self.take(Keyword::Null)? {
                    return Err(self.error("NULL is missing"));
                }
                Step::IsNull
            }
            _ => return Err(self.error("BETWEEN, IN or LIKE is missing")),
        };
        self.steps.push(step);
        if is_negated {
            self.steps.push(Step::Not);
        }
        Ok(Operand { kind: Kind::Condition, ..left })
    }

    /// The list of IN.
    fn texts(&mut self) -> Result<Box<[Box<str>]>, SelectorError> {
        if self.token != Token::Open {
            return Err(self.error("IN needs a list in parentheses"));
        }
        let mut texts = Vec::new();
        while texts.is_empty() || self.token == Token::Comma {
            self.advance()?;
            texts.push(self.text("IN takes strings in single quotes")?);
        }
        if self.token != Token::Close {
            return Err(self.error("',' or ')' is missing"));
        }
        self.advance()?;
        texts.sort_unstable();
        Ok(texts.into())
    }

    /// The pattern of LIKE.
    fn pattern(&mut self) -> Result<Pattern, SelectorError> {
        let position = self.position;
        let pattern = self.text("LIKE takes a string in single quotes")?;
        let mut escape = None;
        if self.take(Keyword::Escape)? {
            let position = self.position;
            let reason = "ESCAPE takes one character in single quotes";
            let text = self.text(reason)?;
            let mut characters = text.chars();
            escape = characters.next();
            if escape.is_none() || characters.next().is_some() {
                return Err(SelectorError { reason, position });
            }
        }
        Pattern::parse(&pattern, escape).map_err(|reason| SelectorError { reason, position })
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        loop {
            let operation = match self.token {
                Token::Plus => Arithmetic::Add,
                Token::Minus => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.product()?;
            left = self.calculate(left, operation, right)?;
        }
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.factor()?;
        loop {
            let operation = match self.token {
                Token::Times => Arithmetic::Multiply,
                Token::Divide => Arithmetic::Divide,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.factor()?;
            left = self.calculate(left, operation, right)?;
        }
    }

    fn calculate(&mut self, left: Operand, operation: Arithmetic, right: Operand) -> Parsed {
        left.expect_number()?;
        right.expect_number()?;
        self.steps.push(Step::Calculate(operation));
        Ok(Operand { kind: Kind::Number, ..left })
    }

    fn factor(&mut self) -> Parsed {
        let position = self.position;
        let (step, kind) = match std::mem::replace(&mut self.token, Token::End) {
            Token::Plus => return self.signed(Step::Plus),
            Token::Minus => return self.signed(Step::Minus),
            Token::Open => return self.parentheses(),
            Token::Identifier(name) => (Step::Header(Header::new(name)), Kind::Name),
            Token::Text(text) => (Step::Text(text), Kind::Text),
            Token::Approximate(value) => (Step::Number(Number::Approximate(value)), Kind::Number),
            Token::Exact(value) => {
                let value = i64::try_from(value).map_err(|_| self.error(TOO_LARGE))?;
                (Step::Number(Number::Exact(value)), Kind::Number)
            }
            Token::Keyword(Keyword::True) => (Step::Bool(true), Kind::Condition),
            Token::Keyword(Keyword::False) => (Step::Bool(false), Kind::Condition),
            Token::Keyword(Keyword::Null) => return Err(self.error("NULL stands only after IS and IS NOT")),
            Token::Keyword(_) => return Err(self.error("a reserved word stands where a value belongs")),
            Token::End => return Err(self.error("a value is missing at the end")),
            _ => return Err(self.error("a value is missing")),
        };
        self.advance()?;
        self.steps.push(step);
        Ok(Operand { kind, position })
    }

    /// What follows a sign; the sign is ahead.
    fn signed(&mut self, sign: Step) -> Parsed {
        let position = self.position;
        self.advance()?;
        // The smallest number has no positive counterpart, so its sign is read with it.
        if let (Step::Minus, Token::Exact(LOWEST_MAGNITUDE)) = (&sign, &self.token) {
            self.advance()?;
            self.steps.push(Step::Number(Number::Exact(i64::MIN)));
            return Ok(Operand { kind: Kind::Number, position });
        }
        self.nest(position)?;
        self.factor()?.expect_number()?;
        self.nesting -= 1;
        self.steps.push(sign);
        Ok(Operand { kind: Kind::Number, position })
    }

    /// What stands in parentheses; the opening one is ahead.
    fn parentheses(&mut self) -> Parsed {
        let position = self.position;
        self.nest(position)?;
        self.advance()?;
        let inner = self.condition()?;
        if self.token != Token::Close {
            return Err(self.error("')' is missing"));
        }
        self.advance()?;
        self.nesting -= 1;
        Ok(Operand { position, ..inner })
    }

    fn nest(&mut self, position: usize) -> Result<(), SelectorError> {
        self.nesting += 1;
        if self.nesting > Selector::NESTING_MAX {
            return Err(SelectorError { reason: "the selector nests deeper than 64 levels", position });
        }
        Ok(())
    }

    /// The string literal ahead.
    fn text(&mut self, reason: &'static str) -> Result<Box<str>, SelectorError> {
        match std::mem::replace(&mut self.token, Token::End) {
            Token::Text(text) => {
                self.advance()?;
                Ok(text)
            }
            _ => Err(self.error(reason)),
        }
    }

    fn take(&mut self, keyword: Keyword) -> Result<bool, SelectorError> {
        let is_ahead = self.token == Token::Keyword(keyword);
        if is_ahead {
            self.advance()?;
        }
        Ok(is_ahead)
    }

    fn advance(&mut self) -> Result<(), SelectorError> {
        (self.token, self.position) = self.lexer.token()?;
        Ok(())
    }

    fn error(&self, reason: &'static str) -> SelectorError {
        SelectorError { reason, position: self.position }
    }
}

impl Operand {
    fn expect(self, kind: Kind, reason: &'static str) -> Result<(), SelectorError> {
        if self.kind == kind || self.kind == Kind::Name {
            return Ok(());
        }
        Err(SelectorError { reason, position: self.position })
    }

    fn expect_condition(self) -> Result<(), SelectorError> {
        self.expect(Kind::Condition, "this is a value where a condition belongs")
    }

    fn expect_number(self) -> Result<(), SelectorError> {
        self.expect(Kind::Number, "arithmetic needs numbers")
    }

    fn expect_ordered(self) -> Result<(), SelectorError> {
        self.expect(Kind::Number, "only numbers have an order")
    }

    fn expect_name(self) -> Result<(), SelectorError> {
        self.expect(Kind::Name, "IN, LIKE and IS NULL ask about the name of a header")
    }
}

/// Of `i64::MIN`.
const LOWEST_MAGNITUDE: u64 = 1 << 63;
