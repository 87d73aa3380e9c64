//! Patterns of LIKE: `_` is any one character, `%` any number of them. Knows no headers.
//! Spec: Jakarta Messaging 3.1 §3.8.1.1.

use std::collections::BTreeMap;

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
    /// The same, where it is searched for.
    Searched(Search),
}

/// A piece with `_` between two `%`, each of its characters a bit: a text is searched in one pass, whatever it looks like.
#[derive(Clone, Debug)]
struct Search {
    /// Where any character may be.
    any: u64,
    /// Where these may be. Sorted.
    places: Box<[(char, u64)]>,
    /// The last character's.
    end: u64,
}

/// Characters of such a piece: bits of the number.
const SEARCHED_MAX: usize = u64::BITS as usize;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// The escape character stands in front of something that needs no escape, or at the end; or what is to be searched
    /// for is too long.
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
        if let [_, between @ .., _] = &mut *pieces {
            for piece in between {
                if let Piece::Open(characters) = piece {
                    let search = Search::new(characters);
                    *piece = Piece::Searched(
                        search.ok_or("too many characters stand between two '%' with a '_'")?,
                    );
                }
            }
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// Whether all of the text is like this. Linear in text and pattern.
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
            Self::Searched(_) => None, // it never begins the text
        }
    }

    /// What lies behind its first place in the text.
    fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => text.split_once(&**literal).map(|(_, behind)| behind),
            Self::Searched(search) => search.find(text),
            Self::Open(_) => None, // it begins the text or ends it
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
            Self::Searched(_) => false, // it never ends the text
        }
    }
}

impl Search {
    /// `None`: it is too long.
    fn new(characters: &[Option<char>]) -> Option<Self> {
        if characters.len() > SEARCHED_MAX {
            return None;
        }
        let (mut any, mut end, mut bit) = (0, 0, 1_u64);
        let mut places = BTreeMap::new();
        for character in characters {
            match character {
                Some(c) => *places.entry(*c).or_insert(0) |= bit,
                None => any |= bit,
            }
            end = bit;
            bit = bit.wrapping_shl(1);
        }
        Some(Self { any, places: places.into_iter().collect(), end })
    }

    /// What lies behind its first place in the text.
    fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        let mut rest = text.chars();
        // A bit for each place in the piece up to which the last characters are alike.
        let mut alike = 0_u64;
        loop {
            alike = ((alike << 1) | 1) & (self.any | self.places_of(rest.next()?));
            if alike & self.end != 0 {
                return Some(rest.as_str());
            }
        }
    }

    fn places_of(&self, c: char) -> u64 {
        let place = self.places.binary_search_by_key(&c, |(known, _)| *known).ok();
        place.and_then(|place| self.places.get(place)).map_or(0, |(_, places)| *places)
    }
}
