//! Quantities: `100m`, `1.5Gi`, `12e6`. Exact fixed-point numbers that print in canonical
//! form. Knows nothing of resources.
//!
//! Values are kept in billionths (`n`), so magnitudes up to about 1.7e29 are exact. As
//! Kubernetes does, finer fractions round away from zero, and binary quantities cap at 2^63-1.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const NANO: i128 = 1_000_000_000;
const BINARY_MAX: i128 = (i64::MAX as i128) * NANO;

/// Why a text is no quantity; the texts clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// A number with two points, or one too large to keep.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// A suffix that is none.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes a quantity prints with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `m`, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `e6`, …
    DecimalExponent,
}

/// An exact amount. Equality and order are those of the amount, whatever the format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    #[must_use]
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANO, format }
    }

    /// Thousandths, such as millicores.
    #[must_use]
    pub const fn from_milli(value: i64) -> Self {
        Self { nanos: value as i128 * 1_000_000, format: Format::DecimalSi }
    }

    /// Bytes, printed with binary suffixes.
    #[must_use]
    pub const fn bytes(value: i64) -> Self {
        Self::new(value, Format::BinarySi)
    }

    /// The amount in billionths.
    #[must_use]
    pub const fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The format it prints in.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The amount in whole units, rounded away from zero; saturates.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded away from zero; saturates.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled(1_000_000)
    }

    fn scaled(self, unit: i128) -> i64 {
        let rest = self.nanos % unit;
        let whole = self.nanos / unit + rest.signum();
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether the amount is zero.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub const fn signum(&self) -> i8 {
        self.nanos.signum() as i8
    }

    /// The amount as a floating-point number, for metrics and ratios only.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "documented as approximate")]
    pub fn approximate(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    fn combine(self, other: Self, nanos: i128) -> Self {
        Self { nanos, format: if self.nanos == 0 { other.format } else { self.format } }
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

impl std::hash::Hash for Quantity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_add(other.nanos))
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_sub(other.nanos))
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), format: self.format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, whole, fraction, suffix) = split(text)?;
        let (factor, format) = suffix_of(suffix)?;
        let magnitude = match factor {
            Factor::Ten(exponent) => decimal(whole, fraction, exponent)?,
            Factor::Two(shift) => binary(whole, fraction, shift)?,
        };
        // Fractions of one print in decimal whatever their suffix was.
        let format =
            if format == Format::BinarySi && magnitude < NANO { Format::DecimalSi } else { format };
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

/// Sign, digits before and after the point, suffix.
fn split(text: &str) -> Result<(bool, &str, &str, &str), QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    if number.is_empty() || !suffix_shape(suffix) {
        return Err(QuantityError::Format);
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return Err(QuantityError::Format);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(QuantityError::Numeric);
    }
    Ok((text.starts_with('-'), whole, fraction, suffix))
}

fn suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

enum Factor {
    Ten(i32),
    Two(u32),
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

fn suffix_of(suffix: &str) -> Result<(Factor, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Ok((Factor::Ten(*exponent), Format::DecimalSi));
    }
    if let Some((_, shift)) = BINARY.iter().find(|(text, _)| *text == suffix) {
        return Ok((Factor::Two(*shift), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Factor::Ten(exponent), Format::DecimalExponent))
}

/// `whole.fraction * 10^exponent` in billionths, finer parts rounded up.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> Result<i128, QuantityError> {
    let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0');
    let count = i64::try_from(digits().count()).map_err(|_| QuantityError::Numeric)?;
    if count == 0 {
        return Ok(0);
    }
    let places = i64::try_from(fraction.len()).map_err(|_| QuantityError::Numeric)?;
    // How many digits remain left of the billionths' end.
    let shift = i64::from(exponent) + 9 - places;
    let kept = count + shift.min(0);
    if kept <= 0 {
        return Ok(1);
    }
    if kept + shift.max(0) > 38 {
        return Err(QuantityError::Numeric);
    }
    let mut value: i128 = 0;
    let mut rest = false;
    for (index, digit) in (0_i64..).zip(digits()) {
        if index < kept {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(i128::from(digit - b'0')))
                .ok_or(QuantityError::Numeric)?;
        } else {
            rest |= digit != b'0';
        }
    }
    for _ in 0..shift.max(0) {
        value = value.checked_mul(10).ok_or(QuantityError::Numeric)?;
    }
    value.checked_add(i128::from(rest)).ok_or(QuantityError::Numeric)
}

/// `whole.fraction * 2^shift` in billionths, rounded up, capped at 2^63-1.
fn binary(whole: &str, fraction: &str, shift: u32) -> Result<i128, QuantityError> {
    let whole = whole.trim_start_matches('0');
    if whole.len() > 19 {
        return Ok(BINARY_MAX);
    }
    let whole: i128 =
        if whole.is_empty() { 0 } else { whole.parse().map_err(|_| QuantityError::Numeric)? };
    let scale = 1_i128 << shift;
    let Some(whole) = whole.checked_mul(scale).and_then(|value| value.checked_mul(NANO)) else {
        return Ok(BINARY_MAX);
    };
    // Twelve digits of the fraction times 2^60 times 10^9 do not fit: keep eleven and round up.
    let kept = &fraction[..fraction.len().min(11)];
    let dropped = fraction[kept.len()..].bytes().any(|b| b != b'0');
    let mut part: i128 =
        if kept.is_empty() { 0 } else { kept.parse().map_err(|_| QuantityError::Numeric)? };
    let mut divisor = 10_i128.pow(u32::try_from(kept.len()).unwrap_or(0));
    // Share the factor of ten so that the product stays in range.
    let nanos = NANO.min(divisor);
    divisor /= nanos;
    let rest_of_nano = NANO / nanos;
    part = part
        .checked_mul(scale)
        .and_then(|value| value.checked_mul(rest_of_nano))
        .ok_or(QuantityError::Numeric)?;
    let rounded = part / divisor + i128::from(part % divisor != 0 || dropped);
    Ok(whole.saturating_add(rounded).min(BINARY_MAX))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        let binary = self.format == Format::BinarySi
            && self.nanos % NANO == 0
            && !(-1024 < whole && whole < 1024);
        if binary {
            let mut value = whole;
            let mut steps = 0;
            while value % 1024 == 0 && steps < BINARY.len() {
                value /= 1024;
                steps += 1;
            }
            let suffix = if steps == 0 { "" } else { BINARY[steps - 1].0 };
            return write!(f, "{value}{suffix}");
        }
        let mut value = self.nanos;
        let mut exponent = -9;
        while value % 1000 == 0 {
            value /= 1000;
            exponent += 3;
        }
        if exponent == 0 {
            return write!(f, "{value}");
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map(|(text, _)| *text);
        match suffix {
            Some(suffix) if self.format != Format::DecimalExponent => write!(f, "{value}{suffix}"),
            _ => write!(f, "{value}e{exponent}"),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text.trim().parse().map_err(de::Error::custom),
            serde_json::Value::Number(number) => {
                number.to_string().parse().map_err(de::Error::custom)
            }
            serde_json::Value::Null => Ok(Self::ZERO),
            _ => Err(de::Error::custom(QuantityError::Format)),
        }
    }
}

#[cfg(test)]
mod tests;
