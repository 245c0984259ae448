//! Sizes as people write them: `512M`, `1.5GiB`, `100MB`, `8388608`.
//!
//! Units: `K M G T P` and `KiB MiB ..` are powers of 1024, `KB MB ..` powers of 1000 (the project's convention, the
//! same as coreutils'), `B` or nothing is bytes. Case does not matter. Fractions are exact integer arithmetic, never
//! floating point, and must come out as whole bytes or are rounded down to one.
//!
//! Invariants: [`parse`] never panics, whatever the text; a value that does not fit 64 bits is refused, not wrapped;
//! every error names the text and shows a right one.

use std::fmt;

/// What a right size looks like; part of every error.
const RIGHT: &str = "write it like 512M, 1.5GiB, 100MB or a plain number of bytes";
/// No more digits than this are read on either side of the point: 10^20 is above 2^64 already.
const MAX_DIGITS: usize = 20;
/// How much of a bad text is quoted back.
const MAX_QUOTED: usize = 40;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Nothing there.
    #[error("the size is empty; {RIGHT}")]
    Empty,
    /// The text does not begin with a number.
    #[error("{0} does not begin with a number; {RIGHT}")]
    NoNumber(Quoted),
    /// The number itself cannot be read.
    #[error("{0} has a number that cannot be read; {RIGHT}")]
    BadNumber(Quoted),
    /// The number is followed by something that is no unit.
    #[error("{text} has an unknown unit {unit}; {RIGHT}")]
    UnknownUnit {
        /// The whole text.
        text: Quoted,
        /// The part after the number.
        unit: Quoted,
    },
    /// A fraction of a byte.
    #[error("{0} is not a whole number of bytes; {RIGHT}")]
    PartOfByte(Quoted),
    /// More than 64 bits.
    #[error("{0} is more than can be counted (2^64 bytes); {RIGHT}")]
    TooLarge(Quoted),
}

/// A piece of the user's text, made safe to print: shortened, control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    fn of(text: &str) -> Quoted {
        let mut shown: String = text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
        if text.chars().count() > MAX_QUOTED {
            shown.push_str("...");
        }
        Quoted(shown)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Reads a size in bytes.
///
/// # Errors
/// [`SizeError`] says what part of the text is wrong.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(SizeError::Empty);
    }
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    if number.is_empty() {
        return Err(SizeError::NoNumber(Quoted::of(text)));
    }
    let unit = unit.trim_start();
    let factor = unit_factor(unit)
        .ok_or_else(|| SizeError::UnknownUnit { text: Quoted::of(text), unit: Quoted::of(unit) })?;
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((_, "")) => return Err(SizeError::BadNumber(Quoted::of(text))),
        Some((_, fraction)) if factor == 1 && fraction.bytes().any(|b| b != b'0') => {
            return Err(SizeError::PartOfByte(Quoted::of(text)));
        }
        Some((whole, fraction)) => (whole, fraction),
    };
    let bytes = scale(whole, fraction, factor).ok_or_else(|| match fraction.contains('.') {
        true => SizeError::BadNumber(Quoted::of(text)),
        false => SizeError::TooLarge(Quoted::of(text)),
    })?;
    Ok(bytes)
}

/// `whole.fraction * factor`, rounded down; `None` where it does not fit or is no number.
fn scale(whole: &str, fraction: &str, factor: u64) -> Option<u64> {
    let factor = u128::from(factor);
    let whole = digits(whole.trim_start_matches('0'))?;
    // Digits past the 20th change nothing that a 64-bit count of bytes could show (factor < 10^20), but must be digits.
    let fraction = fraction.trim_end_matches('0');
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(MAX_DIGITS - 1)];
    let part = digits(kept)?.checked_mul(factor)? / 10u128.checked_pow(u32::try_from(kept.len()).ok()?)?;
    let total = whole.checked_mul(factor)?.checked_add(part)?;
    u64::try_from(total).ok()
}

/// A run of decimal digits, `None` above 20 of them; an empty one is 0 (`.5G`).
fn digits(text: &str) -> Option<u128> {
    if text.len() > MAX_DIGITS {
        return None;
    }
    text.bytes().try_fold(0u128, |value, b| b.is_ascii_digit().then(|| value * 10 + u128::from(b - b'0')))
}

/// Bytes of one unit; case does not matter.
fn unit_factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Some(1);
    }
    let power = u32::try_from("KMGTPE".find(unit.chars().next()?)?).ok()? + 1;
    match unit.get(1..)? {
        "" | "IB" => 1024u64.checked_pow(power),
        "B" => 1000u64.checked_pow(power),
        _ => None,
    }
}

/// A size for people: `512M`, `1.5G`, `100000000 bytes` where no unit of 1024 makes it short.
pub fn show(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        let one = 1u64 << shift;
        if bytes >= one && bytes.is_multiple_of(one / 2) {
            return match bytes % one {
                0 => format!("{}{unit}", bytes >> shift),
                _ => format!("{}.5{unit}", bytes >> shift),
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_read() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1.5G", 3 << 29),
            (".5G", 1 << 29),
            ("100MB", 100_000_000),
            ("100mb", 100_000_000),
            ("2.5KB", 2500),
            ("8388608", 8 << 20),
            ("8388608B", 8 << 20),
            ("8388608.0", 8 << 20),
            (" 1 GiB ", 1 << 30),
            ("0", 0),
            ("0000000000000000000000000000016K", 16 << 10),
            ("0.1K", 102),
            ("18446744073709551615", u64::MAX),
            ("15.999999999999999999E", 18446744073709551614),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "",
            " ",
            "M",
            "abc",
            "12Q",
            "12MM",
            "12iB",
            "-5M",
            "+5M",
            "1,5G",
            "1e9",
            "0x10",
            "1_000",
            "1.G",
            ".",
            "..",
            "1.2.3M",
            "50%",
            "512 M x",
            "٥M",
            "1.5",
            "1.5B",
            "NaN",
            "inf",
            "\u{0}",
            "12\u{202e}M",
            "½G",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("512M"), "{text}: {error}");
        }
    }

    #[test]
    fn overflow_is_refused_and_not_wrapped() {
        for text in
            ["18446744073709551616", "16E", "16EiB", "99999999999999999999999999T", "18447PB", "20000P"]
        {
            assert!(matches!(parse(text), Err(SizeError::TooLarge(_))), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn a_long_or_hostile_text_is_quoted_short_and_escaped() {
        let error = parse(&format!("\u{1b}[31m{}", "x".repeat(10_000))).expect_err("no number").to_string();
        assert!(error.len() < 250 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn sizes_are_shown_as_people_write_them() {
        assert_eq!(show(8 << 20), "8M");
        assert_eq!(show(3 << 29), "1.5G");
        assert_eq!(show(100_000_000), "100000000 bytes");
        assert_eq!(show(0), "0 bytes");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn near_sizes_never_panic(text in "[0-9.]{0,30} ?[kKmMgGtTpPeE]?[iI]?[bB]?.?") {
            let _ = parse(&text);
        }

        #[test]
        fn whole_numbers_come_back_exactly(value in any::<u64>()) {
            prop_assert_eq!(parse(&value.to_string()), Ok(value));
        }

        #[test]
        fn what_is_shown_is_read_back(value in any::<u64>()) {
            let text = show(value);
            prop_assert_eq!(parse(text.trim_end_matches(" bytes")), Ok(value));
        }

        #[test]
        fn a_unit_multiplies_or_is_refused(value in any::<u64>(), index in 0usize..6) {
            let unit = &"KMGTPE"[index..=index];
            let factor = 1024u64.pow(u32::try_from(index).expect("small") + 1);
            match value.checked_mul(factor) {
                Some(bytes) => prop_assert_eq!(parse(&format!("{value}{unit}")), Ok(bytes)),
                None => prop_assert!(parse(&[value.to_string().as_str(), unit].concat()).is_err()),
            }
        }
    }
}
