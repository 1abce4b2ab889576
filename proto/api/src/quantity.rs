//! Quantities (`resource.Quantity`): exact decimal arithmetic, and the one way
//! in which the API writes each number.
//!
//! A quantity is a whole number of nano units, which is upstream's precision:
//! what is finer is rounded away from zero. Invariant: `parse(q.to_string()) == q`,
//! and printing what was parsed from a canonical text changes nothing.

use std::cmp::Ordering;
use std::fmt;

/// How a quantity was written, which is how it is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `100m`, `2`, `3G`.
    DecimalSi,
    /// `1Ki`, `2Gi`.
    BinarySi,
    /// `1e3`, `12E6`.
    DecimalExponent,
}

/// An exact amount. Comparison and equality are by amount alone.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The texts are those that clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
/// What a larger number becomes (upstream caps at the largest int64).
const CAP: i128 = i64::MAX as i128 * NANO;
/// Above this a number is capped: 10^24 units, far beyond any real amount.
const LIMIT: i128 = 1_000_000_000_000_000_000_000_000 * NANO;
/// The longest text that is read.
const MAX_TEXT: usize = 256;

// Named methods read better where amounts are options, and need no import.
#[allow(clippy::should_implement_trait)]
impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn from_int(units: i64) -> Quantity {
        Quantity { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: i128::from(milli) * 1_000_000, format: Format::DecimalSi }
    }

    /// An amount of bytes: printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(QuantityError::Format);
        }
        if text == "0" {
            return Ok(Quantity::ZERO);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let int_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (int_part, mut rest) = rest.split_at(int_len);
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let n = after.bytes().take_while(u8::is_ascii_digit).count();
            (fraction, rest) = after.split_at(n);
        }
        if int_part.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Format);
        }
        let suffix = check_suffix(rest)?;
        let (base2, exponent, format) = interpret(suffix)?;
        let (nanos, lost) = assemble(int_part, fraction, base2, exponent);
        let mut nanos = if lost { nanos + 1 } else { nanos };
        if nanos > LIMIT || (format == Format::BinarySi && nanos > CAP) {
            nanos = CAP;
        }
        // What is less than one is never written in binary, nor are its sums.
        let format = if format == Format::BinarySi && nanos < NANO { Format::DecimalSi } else { format };
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whole units, rounded up, saturating.
    pub fn value(&self) -> i64 {
        ceil_div(self.nanos, NANO)
    }

    /// Thousandths, rounded up, saturating.
    pub fn milli_value(&self) -> i64 {
        ceil_div(self.nanos, 1_000_000)
    }

    /// The amount as a float: for ratios only, never for accounting.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    #[must_use]
    pub fn add(self, other: Quantity) -> Quantity {
        // The empty amount takes the other's format, as upstream's Add does.
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    #[must_use]
    pub fn sub(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_sub(other.nanos), format }
    }

    #[must_use]
    pub fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }
}

/// The characters that a suffix may have; anything else is a format error.
fn check_suffix(text: &str) -> Result<&str, QuantityError> {
    let letters = text.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let mut tail = &text[letters..];
    if tail.starts_with(['-', '+']) {
        tail = &tail[1..];
    }
    match tail.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(text),
        false => Err(QuantityError::Format),
    }
}

/// Suffix to (power of two, power of ten, format).
fn interpret(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    let decimal = |e| Ok((0, e, Format::DecimalSi));
    let binary = |e| Ok((e, 0, Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => match suffix.strip_prefix(['e', 'E']) {
            Some(exponent) => {
                let e: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
                Ok((0, e.clamp(-1000, 1000), Format::DecimalExponent))
            }
            None => Err(QuantityError::Suffix),
        },
    }
}

/// The number in nanos (at most a little over `LIMIT`), and whether something
/// finer than a nano was cut off.
fn assemble(int_part: &str, fraction: &str, base2: u32, exponent: i32) -> (i128, bool) {
    // Digits scaled by 10^9 * 10^exponent * 2^base2. Binary suffixes multiply the
    // mantissa first, in 128 bits where it fits, so that 0.1Gi is exact.
    let digits: String = [int_part, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let mut scale = exponent + 9 - fraction.len() as i32;
    let mut lost = false;
    let mut mantissa: i128 = 0;
    for (i, d) in digits.bytes().enumerate() {
        if mantissa > LIMIT {
            // More digits than matter: they only shift the scale.
            let left = &digits[i..];
            scale += left.len() as i32;
            lost |= left.bytes().any(|b| b != b'0');
            break;
        }
        mantissa = mantissa * 10 + i128::from(d - b'0');
    }
    if mantissa == 0 {
        return (0, false);
    }
    for _ in 0..base2 {
        match mantissa.checked_mul(2) {
            Some(m) => mantissa = m,
            None if scale < 0 => {
                lost |= mantissa % 10 != 0;
                mantissa = mantissa / 10 * 2;
                scale += 1;
            }
            None => return (LIMIT + 1, false),
        }
    }
    while scale > 0 {
        if mantissa > LIMIT {
            return (LIMIT + 1, false);
        }
        mantissa *= 10;
        scale -= 1;
    }
    while scale < 0 && mantissa > 0 {
        lost |= mantissa % 10 != 0;
        mantissa /= 10;
        scale += 1;
    }
    (mantissa.min(LIMIT + 1), lost)
}

fn ceil_div(n: i128, d: i128) -> i64 {
    let q = n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0);
    i64::try_from(q).unwrap_or(if q < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small or fractional amounts are never written in binary: it would round.
        let small = self.nanos > -1024 * NANO && self.nanos < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.nanos % NANO == 0 {
            let (mut n, mut power) = (self.nanos / NANO, 0);
            while n % 1024 == 0 && power < 6 {
                n /= 1024;
                power += 1;
            }
            return write!(f, "{n}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut n, mut exponent) = (self.nanos, -9i32);
        while n % 10 == 0 {
            n /= 10;
            exponent += 1;
        }
        while exponent.rem_euclid(3) != 0 || (exponent > 18 && self.format != Format::DecimalExponent) {
            n *= 10;
            exponent -= 1;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{n}") } else { write!(f, "{n}e{exponent}") };
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
        write!(f, "{n}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl Default for Quantity {
    fn default() -> Self {
        Quantity::ZERO
    }
}
impl std::str::FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Quantity::parse(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canon(s: &str) -> String {
        Quantity::parse(s).unwrap().to_string()
    }

    #[test]
    fn amounts_have_one_canonical_text() {
        for (from, to) in [
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("0.1Gi", "107374182400m"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("100Ki", "100Ki"),
            ("1536Mi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("-2Gi", "-2Gi"),
            ("0", "0"),
            ("0Gi", "0"),
            ("1000000", "1M"),
            ("1500000", "1500k"),
            ("100E", "100E"),
            ("7Ei", "7Ei"),
            ("8Ei", "9223372036854775807"),
            ("1.5e3", "1500"),
            ("1.25e1", "12500e-3"),
            ("1000000u", "1"),
            ("+5", "5"),
            ("00.10", "100m"),
            ("1.5Gi", "1536Mi"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            assert_eq!(canon(from), to, "{from}");
            assert_eq!(canon(to), to, "{to} again");
        }
    }

    #[test]
    fn wrong_texts_are_refused_with_the_texts_that_clients_know() {
        assert_eq!(Quantity::parse(""), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("abc"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1x"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1 Gi"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1Kii"), Err(QuantityError::Suffix));
        assert_eq!(Quantity::parse("1ee"), Err(QuantityError::Suffix));
        assert!(Quantity::parse("").unwrap_err().to_string().contains("'^([+-]?[0-9.]+)"));
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Quantity::parse("1m").unwrap().value(), 1);
        assert_eq!(Quantity::parse("-1500m").unwrap().value(), -1);
        assert_eq!(Quantity::parse("100u").unwrap().milli_value(), 1);
        assert_eq!(Quantity::parse("2.5Ki").unwrap().value(), 2560);
        assert_eq!(Quantity::parse("1e300").unwrap().value(), i64::MAX);
    }

    #[test]
    fn sums_are_exact() {
        let a = Quantity::parse("100m").unwrap();
        let mut sum = Quantity::ZERO;
        for _ in 0..10 {
            sum = sum.add(a);
        }
        assert_eq!(sum.to_string(), "1");
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
        assert_eq!(Quantity::parse("1024Mi").unwrap().sub(Quantity::parse("1Mi").unwrap()).to_string(), "1023Mi");
    }
}
