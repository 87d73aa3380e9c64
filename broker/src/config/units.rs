//! Sizes, durations, shares and `"none"` as an operator writes them, both ways. Knows no key.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes; written as `"64 KiB"`, `"1 MB"` or a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

/// A share of the machine's memory, or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBudget {
    /// Of the memory that the machine or the container has.
    Percent(u8),
    /// So much.
    Bytes(ByteSize),
}

/// Why a text is no size, duration or share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No digits where a number belongs.
    #[error("`{0}` does not begin with a number; write it like {1}")]
    NoNumber(String, &'static str),
    /// A number alone, where it would not be clear of what.
    #[error("`{0}` has no unit; write it like {1}")]
    NoUnit(String, &'static str),
    /// A word that is no unit.
    #[error("`{unit}` is not a unit; known are {known}")]
    UnknownUnit {
        /// As written.
        unit: String,
        /// The units.
        known: &'static str,
    },
    /// More than fits.
    #[error("`{0}` is too large")]
    TooLarge(String),
    /// Smaller than the smallest unit.
    #[error("`{0}` is not a whole number of {1}")]
    TooFine(String, &'static str),
    /// More than everything.
    #[error("`{0}` is not between 1% and 100%")]
    NotAShare(String),
}

const SIZE_EXAMPLE: &str = "\"64 KiB\" or \"1 MiB\"";
const SIZE_UNITS: &str = "B, KiB, MiB, GiB, TiB (1024) and kB, MB, GB, TB (1000)";
const DURATION_EXAMPLE: &str = "\"200ms\", \"25s\" or \"1h\"";
const DURATION_UNITS: &str = "us, ms, s, m, h, d";

impl ByteSize {
    /// The bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }

    /// Reads `"64 KiB"`.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (amount, unit, rest) = Amount::split(text.trim(), SIZE_EXAMPLE)?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), known: SIZE_UNITS }),
        };
        if !rest.is_empty() {
            return Err(UnitError::UnknownUnit { unit: rest.to_owned(), known: SIZE_UNITS });
        }
        let bytes = amount.times(factor, text, "bytes")?;
        usize::try_from(bytes).map(Self).map_err(|_| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", bytes >> shift);
            }
        }
        write!(f, "{bytes} B")
    }
}

impl MemoryBudget {
    /// Reads `"25%"` or a size.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return ByteSize::parse(text).map(Self::Bytes);
        };
        match number.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(UnitError::NotAShare(text.to_owned())),
        }
    }

    /// The bytes, on a machine with this much memory.
    #[must_use]
    pub const fn bytes(self, memory_bytes: usize) -> usize {
        match self {
            // Divided first: the product could overflow.
            Self::Percent(percent) => memory_bytes / 100 * percent as usize,
            Self::Bytes(size) => size.0,
        }
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(size) => size.fmt(f),
        }
    }
}

/// Reads `"25s"`, also `"1m30s"` and `"1.5s"`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    let mut total_us: u64 = 0;
    loop {
        let (amount, unit, behind) = Amount::split(rest, DURATION_EXAMPLE)?;
        let factor_us = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "" => return Err(UnitError::NoUnit(text.to_owned(), DURATION_EXAMPLE)),
            _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), known: DURATION_UNITS }),
        };
        let part_us = amount.times(factor_us, text, "microseconds")?;
        total_us = total_us.checked_add(part_us).ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
        rest = behind;
        if rest.is_empty() {
            return Ok(Duration::from_micros(total_us));
        }
    }
}

/// The shortest text that [`parse_duration`] reads back to the same microsecond.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let us = duration.as_micros();
    if us == 0 {
        return "0s".to_owned();
    }
    let units =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    for (factor, unit) in units {
        if us.is_multiple_of(factor) {
            return format!("{}{unit}", us / factor);
        }
    }
    format!("{us}us")
}

/// A decimal number: `digits` / 10^`places`.
struct Amount {
    digits: u64,
    places: u32,
}

impl Amount {
    /// The number at the start of `text`, the letters behind it, and what is left.
    fn split<'a>(text: &'a str, example: &'static str) -> Result<(Self, &'a str, &'a str), UnitError> {
        let number_len = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '_')).unwrap_or(text.len());
        let (number, behind) = text.split_at(number_len);
        let behind = behind.trim_start();
        let unit_len = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, rest) = behind.split_at(unit_len);
        if unit.is_empty() && !rest.is_empty() && !number.is_empty() {
            return Ok((Self::parse(number, text, example)?, rest, ""));
        }
        Ok((Self::parse(number, text, example)?, unit, rest.trim_start()))
    }

    fn parse(number: &str, text: &str, example: &'static str) -> Result<Self, UnitError> {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit()) && !part.contains('.');
        if !is_number(whole) || !is_number(fraction) {
            return Err(UnitError::NoNumber(text.to_owned(), example));
        }
        let fraction = fraction.replace('_', "");
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{}{fraction}", whole.replace('_', ""));
        let too_large = || UnitError::TooLarge(text.to_owned());
        let places = u32::try_from(fraction.len()).map_err(|_| too_large())?;
        Ok(Self { digits: digits.parse().map_err(|_| too_large())?, places })
    }

    fn times(&self, factor: u64, text: &str, unit: &'static str) -> Result<u64, UnitError> {
        let too_large = || UnitError::TooLarge(text.to_owned());
        let divisor = 10u128.checked_pow(self.places).ok_or_else(too_large)?;
        let product = u128::from(self.digits) * u128::from(factor);
        if product % divisor != 0 {
            return Err(UnitError::TooFine(text.to_owned(), unit));
        }
        u64::try_from(product / divisor).map_err(|_| too_large())
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a size like {SIZE_EXAMPLE}")
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        let unexpected = de::Unexpected::Signed(bytes);
        usize::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        let unexpected = de::Unexpected::Unsigned(bytes);
        usize::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        ByteSize::parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct BudgetVisitor;

impl Visitor<'_> for BudgetVisitor {
    type Value = MemoryBudget;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a share like \"25%\" or a size like {SIZE_EXAMPLE}")
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<MemoryBudget, E> {
        SizeVisitor.visit_i64(bytes).map(MemoryBudget::Bytes)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<MemoryBudget, E> {
        SizeVisitor.visit_u64(bytes).map(MemoryBudget::Bytes)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryBudget, E> {
        MemoryBudget::parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for MemoryBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BudgetVisitor)
    }
}

impl Serialize for MemoryBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a duration like {DURATION_EXAMPLE}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }
}

/// `#[serde(with = "units::duration")]`: a [`Duration`] as text.
pub mod duration {
    use super::{Deserializer, Duration, DurationVisitor, Serializer, format_duration};

    /// From text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }

    /// To text.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*duration))
    }
}

/// `#[serde(with = "units::or_none")]`: something that `"none"` switches off.
pub mod or_none {
    use super::{Deserialize, Deserializer, OrNone, Serialize, Serializer};

    /// `"none"` is `None`.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: OrNone,
    {
        /// What is not the word is handed on, so that the inner error is the one that is shown.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
            Other(serde::de::IgnoredAny),
        }
        let value = match Written::deserialize(deserializer)? {
            Written::Text(text) if text == "none" => return Ok(None),
            Written::Text(text) => T::from_text(&text),
            Written::Number(number) => T::from_number(number),
            Written::Other(_) => Err(format!("expected {} or \"none\"", T::EXPECTED)),
        };
        value.map(Some).map_err(serde::de::Error::custom)
    }

    /// `None` is `"none"`.
    pub fn serialize<S: Serializer, T: OrNone>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            None => serializer.serialize_str("none"),
            Some(value) => value.written().serialize(serializer),
        }
    }
}

/// `#[serde(with = "units::optional_path")]`: a file that `""` leaves out.
pub mod optional_path {
    use std::path::PathBuf;

    use super::{Deserialize, Deserializer, Serializer};

    /// `""` is `None`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok((!text.is_empty()).then(|| text.into()))
    }

    /// `None` is `""`.
    pub fn serialize<S: Serializer>(value: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        let path = value.as_deref().unwrap_or_else(|| "".as_ref());
        serializer.serialize_str(&path.to_string_lossy())
    }
}

/// A value that a key may hold instead of `"none"`.
pub trait OrNone: Sized {
    /// In an error: "expected …".
    const EXPECTED: &'static str;
    /// How it is written.
    type Written: Serialize;
    /// From a text that is not `"none"`.
    fn from_text(text: &str) -> Result<Self, String>;
    /// From a bare number.
    fn from_number(number: i64) -> Result<Self, String>;
    /// To what the file holds.
    fn written(&self) -> Self::Written;
}

impl OrNone for Duration {
    const EXPECTED: &'static str = "a duration like \"25s\"";
    type Written = String;

    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text).map_err(|error| format!("{error}, or \"none\""))
    }

    fn from_number(number: i64) -> Result<Self, String> {
        Err(format!("`{number}` has no unit; write it like {DURATION_EXAMPLE}, or \"none\""))
    }

    fn written(&self) -> String {
        format_duration(*self)
    }
}

impl OrNone for usize {
    const EXPECTED: &'static str = "a whole number";
    type Written = Self;

    fn from_text(text: &str) -> Result<Self, String> {
        Err(format!("`{text}` is neither a whole number nor \"none\""))
    }

    fn from_number(number: i64) -> Result<Self, String> {
        Self::try_from(number).map_err(|_| format!("`{number}` is negative"))
    }

    fn written(&self) -> Self {
        *self
    }
}

impl OrNone for ByteSize {
    const EXPECTED: &'static str = "a size like \"64 MiB\"";
    type Written = Self;

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| format!("{error}, or \"none\""))
    }

    fn from_number(number: i64) -> Result<Self, String> {
        usize::try_from(number).map(Self).map_err(|_| format!("`{number}` is negative"))
    }

    fn written(&self) -> Self {
        *self
    }
}

impl OrNone for std::net::SocketAddr {
    const EXPECTED: &'static str = "an address and port like \"127.0.0.1:9090\"";
    type Written = String;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not {}, nor \"none\"", Self::EXPECTED))
    }

    fn from_number(_number: i64) -> Result<Self, String> {
        Err(format!("expected {} or \"none\"", Self::EXPECTED))
    }

    fn written(&self) -> String {
        self.to_string()
    }
}

/// `#[serde(with = "units::socket_address")]`: an address with its port.
pub mod socket_address {
    use std::net::SocketAddr;

    use super::{Deserialize, Deserializer, Serializer};

    /// From text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            let example = "\"127.0.0.1:8080\", \"0.0.0.0:80\" or \"[::]:80\"";
            serde::de::Error::custom(format!(
                "`{text}` is not an IP address and a port; write it like {example}"
            ))
        })
    }

    /// To text.
    pub fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17 B", 17),
            ("64 KiB", 65_536),
            ("64KiB", 65_536),
            ("1.5 MiB", 1_572_864),
            ("1 MB", 1_000_000),
            ("1_000 b", 1_000),
            ("2 gib", 2 << 30),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for (text, part) in [
            ("", "does not begin with a number"),
            ("KiB", "does not begin with a number"),
            ("-1", "does not begin with a number"),
            ("1 M", "`M` is not a unit"),
            ("1 KiB 2", "`2` is not a unit"),
            ("1 %", "`%` is not a unit"),
            ("1.2.3 B", "does not begin with a number"),
            ("0.5 B", "not a whole number of bytes"),
            ("99999999999 TiB", "too large"),
        ] {
            let error = ByteSize::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn reads_durations() {
        for (text, ms) in
            [("0s", 0), ("200ms", 200), ("25s", 25_000), ("25 s", 25_000), ("1m30s", 90_000), ("1.5s", 1_500)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for (text, part) in [
            ("", "does not begin with a number"),
            ("10", "has no unit"),
            ("10 sec", "`sec` is not a unit"),
            ("10S", "`S` is not a unit"),
            ("1s x", "does not begin with a number"),
            ("0.1us", "not a whole number of microseconds"),
            ("99999999999999d", "too large"),
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn reads_shares_of_memory() {
        assert_eq!(MemoryBudget::parse("25%"), Ok(MemoryBudget::Percent(25)));
        assert_eq!(MemoryBudget::parse("1 KiB"), Ok(MemoryBudget::Bytes(ByteSize(1024))));
        assert_eq!(MemoryBudget::Percent(25).bytes(4_000), 1_000);
        for text in ["0%", "101%", "%", "x%"] {
            assert_eq!(MemoryBudget::parse(text), Err(UnitError::NotAShare(text.to_owned())));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(us in 0u64..10_000_000_000_000, bytes in 0usize..1 << 50) {
            let duration = Duration::from_micros(us);
            proptest::prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            proptest::prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = (parse_duration(&text), MemoryBudget::parse(&text));
        }
    }
}
