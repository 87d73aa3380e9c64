//! The words of a selector: names, literals, keywords and signs. Knows no grammar.
//! Spec: Jakarta Messaging 3.1 §3.8.1.1, and the Java literals that it refers to (JLS §3.8, §3.10).

use std::iter::Peekable;
use std::str::Chars;

use super::SelectorError;

/// One word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name, quoted or not.
    Identifier(Box<str>),
    /// A string literal, without its quotes.
    Text(Box<str>),
    /// An exact number without its sign: at most 2^63, which only a minus makes fit.
    Exact(u64),
    /// An approximate number, finite.
    Approximate(f64),
    /// A reserved word, in any case.
    Keyword(Keyword),
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Plus,
    Minus,
    Times,
    Divide,
    Open,
    Close,
    Comma,
    End,
}

/// A reserved word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

/// Reads one word after another.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    /// Characters read.
    read: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.chars().peekable(), read: 0 }
    }

    /// The next word and the position of its first character, counted from 1.
    pub(super) fn token(&mut self) -> Result<(Token, usize), SelectorError> {
        while self.take_if(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')).is_some() {}
        let position = self.read + 1;
        let Some(first) = self.take_if(|_| true) else { return Ok((Token::End, position)) };
        let token = match first {
            '\'' => Token::Text(self.quoted('\'').ok_or_else(|| unclosed(position))?),
            '"' => {
                let name = self.quoted('"').ok_or_else(|| unclosed(position))?;
                if name.is_empty() {
                    return Err(SelectorError { reason: "a name has at least one character", position });
                }
                Token::Identifier(name)
            }
            '=' => Token::Equal,
            '<' if self.take_if(|c| c == '>').is_some() => Token::Unequal,
            '<' if self.take_if(|c| c == '=').is_some() => Token::LessEqual,
            '<' => Token::Less,
            '>' if self.take_if(|c| c == '=').is_some() => Token::GreaterEqual,
            '>' => Token::Greater,
            '+' => Token::Plus,
            '-' => Token::Minus,
            '*' => Token::Times,
            '/' => Token::Divide,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '!' => return Err(SelectorError { reason: "'!' is no sign here (unequal is <>)", position }),
            first if first.is_ascii_digit() || first == '.' => {
                number(&self.number_text(first)).map_err(|reason| SelectorError { reason, position })?
            }
            first if is_name_start(first) => self.word(first),
            _ => return Err(SelectorError { reason: "this character means nothing here", position }),
        };
        Ok((token, position))
    }

    fn take_if(&mut self, is_wanted: impl FnOnce(char) -> bool) -> Option<char> {
        let taken = self.rest.next_if(|c| is_wanted(*c));
        self.read += usize::from(taken.is_some());
        taken
    }

    /// Up to the closing quote, a doubled one standing for itself; `None`: it never closes.
    fn quoted(&mut self, quote: char) -> Option<Box<str>> {
        let mut text = String::new();
        loop {
            let c = self.take_if(|_| true)?;
            if c == quote && self.take_if(|next| next == quote).is_none() {
                return Some(text.into());
            }
            text.push(c);
        }
    }

    fn word(&mut self, first: char) -> Token {
        let mut text = String::from(first);
        while let Some(c) = self.take_if(is_name_part) {
            text.push(c);
        }
        match Keyword::find(&text) {
            Some(keyword) => Token::Keyword(keyword),
            None => Token::Identifier(text.into()),
        }
    }

    /// Everything that hangs together with a number, right or wrong: `7.`, `0x1F`, `1e-3`, `12abc`.
    fn number_text(&mut self, first: char) -> String {
        let mut text = String::from(first);
        while let Some(c) = self.take_if(|c| is_name_part(c) || c == '.') {
            text.push(c);
            if matches!(c, 'e' | 'E') && !is_hexadecimal(&text) {
                text.extend(self.take_if(|c| matches!(c, '+' | '-')));
            }
        }
        text
    }
}

impl Keyword {
    fn find(text: &str) -> Option<Self> {
        let is = |(word, _): &(&str, Self)| text.eq_ignore_ascii_case(word);
        KEYWORDS.iter().find(|entry| is(entry)).map(|(_, keyword)| *keyword)
    }
}

fn unclosed(position: usize) -> SelectorError {
    SelectorError { reason: "the quote never closes", position }
}

/// A Java identifier, but for the few marks and signs of currencies that are no letters: these are quoted.
fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

fn is_name_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

fn is_hexadecimal(text: &str) -> bool {
    text.starts_with("0x") || text.starts_with("0X")
}

/// A number as Java writes it: JLS §3.10.1 and, in decimal, §3.10.2.
fn number(text: &str) -> Result<Token, &'static str> {
    let is_exact = is_hexadecimal(text) || text.bytes().all(|byte| !matches!(byte, b'.' | b'e' | b'E'));
    let has_float_suffix = !is_hexadecimal(text) && text.ends_with(['d', 'D', 'f', 'F']);
    if is_exact && !has_float_suffix { exact(text) } else { approximate(text) }
}

fn exact(text: &str) -> Result<Token, &'static str> {
    let text = text.strip_suffix(['l', 'L']).unwrap_or(text);
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, text.get(2..).unwrap_or_default()),
        [b'0', b'b' | b'B', ..] => (2, text.get(2..).unwrap_or_default()),
        // JLS §3.10.1: a leading zero makes it octal.
        [b'0', _, ..] => (8, text.get(1..).unwrap_or_default()),
        _ => (10, text),
    };
    let starts_with_digit = digits.starts_with(|c: char| c.is_digit(radix)) || radix == 8;
    if !starts_with_digit || !digits.ends_with(|c: char| c.is_digit(radix)) {
        return Err(wrong_digit(radix));
    }
    let mut value = 0_u64;
    for c in digits.chars().filter(|c| *c != '_') {
        let digit = c.to_digit(radix).ok_or_else(|| wrong_digit(radix))?;
        let grown = value.checked_mul(u64::from(radix)).and_then(|value| value.checked_add(u64::from(digit)));
        value = grown.filter(|value| *value <= EXACT_MAX).ok_or(TOO_LARGE)?;
    }
    Ok(Token::Exact(value))
}

fn approximate(text: &str) -> Result<Token, &'static str> {
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let is_decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !digits.chars().all(is_decimal) {
        return Err("this is no number");
    }
    let value: f64 = digits.parse().map_err(|_| "this is no number")?;
    if value.is_finite() { Ok(Token::Approximate(value)) } else { Err("the number is too large") }
}

fn wrong_digit(radix: u32) -> &'static str {
    match radix {
        8 => "this is no number (one that begins with 0 is octal)",
        _ => "this is no number",
    }
}

/// The magnitude of the smallest number.
const EXACT_MAX: u64 = 1 << 63;

/// Also what the parser says of a 2^63 without a minus.
pub(super) const TOO_LARGE: &str = "the number has more than 64 bits";

/// §3.8.1.1: identifiers cannot be these.
const KEYWORDS: [(&str, Keyword); 11] = [
    ("AND", Keyword::And),
    ("BETWEEN", Keyword::Between),
    ("ESCAPE", Keyword::Escape),
    ("FALSE", Keyword::False),
    ("IN", Keyword::In),
    ("IS", Keyword::Is),
    ("LIKE", Keyword::Like),
    ("NOT", Keyword::Not),
    ("NULL", Keyword::Null),
    ("OR", Keyword::Or),
    ("TRUE", Keyword::True),
];
