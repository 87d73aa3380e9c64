//! The nearest known word to one that is not known. Knows no field and no parameter.

/// The known word that is at most two edits away; of several the first nearest.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const EDITS_MAX: usize = 2;
    const WORD_BYTES_MAX: usize = 24;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    known
        .iter()
        .map(|candidate| (edits(&word, candidate), *candidate))
        // One letter is two edits away from every other word of two letters: no suggestion at all is better.
        .filter(|(edits, candidate)| *edits <= EDITS_MAX && *edits < candidate.len().max(2))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean 'x'?`, or nothing.
pub(super) fn hint(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
}

/// A stranger's word for a sentence: escaped and cut, so that neither a log nor a Close frame is flooded.
pub(super) fn shown(word: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut shown: String = word.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if word.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Levenshtein's distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut beside = index + 1;
        next.push(beside);
        for ((to, diagonal), above) in right.iter().zip(&row).zip(row.iter().skip(1)) {
            beside = (diagonal + usize::from(from != *to)).min(above + 1).min(beside + 1);
            next.push(beside);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (left, right, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("topcis", "topics", 2)]
        {
            assert_eq!(edits(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["topic", "topics", "last", "t"];
        assert_eq!(nearest("topc", &known), Some("topic"));
        assert_eq!(nearest("LAST", &known), Some("last"));
        assert_eq!(nearest("banana", &known), None);
    }
}
