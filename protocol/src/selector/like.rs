//! Patterns of LIKE: `_` is any one character, `%` any number of them. Knows no headers.
//! Spec: Jakarta Messaging 3.1 §3.8.1.1.

/// A pattern, taken apart at its `%`.
///
/// The pieces between two `%` are found from left to right, each at its first place: what lies behind an earlier place
/// lies behind a later one too, so nothing is ever tried again.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// At least one. The first begins the text and the last ends it.
    pieces: Box<[Piece]>,
}

/// What stands between two `%`.
#[derive(Clone, Debug)]
enum Piece {
    /// Without `_`.
    Literal(Box<str>),
    /// `None` is `_`.
    Open(Box<[Option<char>]>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// The escape character stands in front of something that needs no escape, or at the end.
    pub(super) fn parse(text: &str, escape: Option<char>) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                c if Some(c) == escape => match rest.next() {
                    // SQL-92 §8.5: it escapes these and nothing else.
                    Some(next) if matches!(next, '_' | '%') || Some(next) == escape => piece.push(Some(next)),
                    _ => return Err("the escape character does not stand before '_', '%' or itself"),
                },
                '%' => pieces.push(Piece::new(std::mem::take(&mut piece))),
                '_' => piece.push(None),
                c => piece.push(Some(c)),
            }
        }
        pieces.push(Piece::new(piece));
        Ok(Self { pieces: pieces.into() })
    }

    /// Whether all of the text is like this. Linear in the text, or in text times pattern where `_` follows `%`.
    pub(super) fn matches(&self, text: &str) -> bool {
        let [first, between @ ..] = &*self.pieces else { return false };
        let Some(mut rest) = first.strip_start(text) else { return false };
        let Some((last, between)) = between.split_last() else { return rest.is_empty() };
        for piece in between {
            match piece.find(rest) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        last.ends(rest)
    }
}

impl Piece {
    fn new(characters: Vec<Option<char>>) -> Self {
        match characters.iter().copied().collect::<Option<String>>() {
            Some(text) => Self::Literal(text.into()),
            None => Self::Open(characters.into()),
        }
    }

    /// What lies behind it at the beginning of the text.
    fn strip_start<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(&**literal),
            Self::Open(characters) => {
                let mut rest = text.chars();
                let is_alike = |wanted: &Option<char>| {
                    rest.next().is_some_and(|c| wanted.is_none_or(|wanted| wanted == c))
                };
                characters.iter().all(is_alike).then_some(rest.as_str())
            }
        }
    }

    /// What lies behind its first place in the text.
    fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        if let Self::Literal(literal) = self {
            return text.split_once(&**literal).map(|(_, behind)| behind);
        }
        let mut from = text.chars();
        loop {
            if let Some(behind) = self.strip_start(from.as_str()) {
                return Some(behind);
            }
            from.next()?;
        }
    }

    /// Whether the text ends in it.
    fn ends(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => text.ends_with(&**literal),
            Self::Open(characters) => {
                let mut rest = text.chars().rev();
                let is_alike = |wanted: &Option<char>| {
                    rest.next().is_some_and(|c| wanted.is_none_or(|wanted| wanted == c))
                };
                characters.iter().rev().all(is_alike)
            }
        }
    }
}
