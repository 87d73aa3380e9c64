//! UTF-8 that arrives in pieces. Fails at the first byte that cannot be part of it (RFC 6455 §8.1), not at the
//! end of the message. Holds no bytes.

use super::MessageKind;

/// How far a growing text is known to be UTF-8.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8Progress {
    checked_len: usize,
}

/// No continuation makes these bytes UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Utf8Progress {
    /// Looks at what was appended since the last call. A character may still lack its end.
    pub(super) fn check(&mut self, kind: MessageKind, bytes: &[u8]) -> Result<(), NotUtf8> {
        if kind == MessageKind::Binary {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(bytes.get(self.checked_len..).unwrap_or_default()) {
            Ok(_) => self.checked_len = bytes.len(),
            Err(error) if error.error_len().is_some() => return Err(NotUtf8),
            Err(error) => self.checked_len += error.valid_up_to(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the prefix at which byte-wise arrival fails.
    fn fails_at(bytes: &[u8]) -> Option<usize> {
        let mut progress = Utf8Progress::default();
        (0..=bytes.len()).find(|&len| progress.check(MessageKind::Text, &bytes[..len]).is_err())
    }

    #[test]
    fn fails_with_the_first_byte_that_cannot_be_repaired() {
        for (bytes, expected) in [
            (b"\xce\xba\xe1\xbd\xb9".as_slice(), None),
            (b"ab\xff", Some(3)),
            (b"\xf4\x8f\xbf\xbf", None),
            // Autobahn 6.4: U+110000 is known to be wrong after its second byte.
            (b"\xce\xba\xf4\x90\x80\x80", Some(4)),
            (b"\xed\xa0\x80", Some(2)),
            (b"\xc0\x80", Some(1)),
            (b"\xe0\x80\x80", Some(2)),
            (b"\xce", None),
        ] {
            assert_eq!(fails_at(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn binary_is_never_looked_at() {
        assert_eq!(Utf8Progress::default().check(MessageKind::Binary, b"\xff"), Ok(()));
    }
}
