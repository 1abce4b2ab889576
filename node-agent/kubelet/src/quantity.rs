//! Quantities as the node needs them: whole units, thousandths and bytes.
//!
//! The API has already checked and canonicalised what arrives here; a text
//! that is no quantity reads as `None` and the field counts as unset.

/// Thousandths of a unit, rounded up: `100m` is 100, `1` is 1000.
pub fn milli(text: &str) -> Option<i64> {
    scaled(text, 1000)
}

/// Whole units, rounded up: `1Ki` is 1024.
pub fn whole(text: &str) -> Option<i64> {
    scaled(text, 1)
}

fn scaled(text: &str, by: i128) -> Option<i64> {
    let split = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (num, den) = multiplier(suffix)?;
    let negative = number.starts_with('-');
    let digits = number.trim_start_matches(['+', '-']);
    let (int, frac) = digits.split_once('.').unwrap_or((digits, ""));
    if int.is_empty() && frac.is_empty() || int.len() > 18 || frac.len() > 12 {
        return None;
    }
    let scale = 10i128.pow(u32::try_from(frac.len()).ok()?);
    let value = format!("{int}{frac}").parse::<i128>().ok()?;
    let (n, d) = (value.checked_mul(num)?.checked_mul(by)?, den.checked_mul(scale)?);
    let up = (n + d - 1).div_euclid(d);
    let out = i64::try_from(up).unwrap_or(i64::MAX);
    Some(if negative { -out } else { out })
}

fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_every_suffix_and_rounded_up() {
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("1u"), Some(1));
        assert_eq!(whole("64Mi"), Some(64 << 20));
        assert_eq!(whole("1e3"), Some(1000));
        assert_eq!(whole("1G"), Some(1_000_000_000));
        assert_eq!(whole("1500m"), Some(2));
        assert_eq!(whole("-5"), Some(-5));
    }

    #[test]
    fn what_is_no_quantity_reads_as_none() {
        for bad in ["", "Mi", "1Qi", "..", "1e99"] {
            assert_eq!(whole(bad), None, "{bad}");
        }
    }
}
