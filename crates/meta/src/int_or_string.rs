//! Numbers that may be percentages: `maxSurge: 25%`. Knows nothing of what they limit.

use serde_json::Value;

use crate::quote::quote;

/// Why a value is neither a number nor a percentage; texts as clients see them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntOrStringError {
    /// A text that does not end in `%`.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercentage,
    /// A text that ends in `%` after something that is no number.
    #[error("invalid value for IntOrString: invalid value {0}: {1}")]
    NotNumber(String, String),
    /// Neither a whole number nor a text.
    #[error("invalid value for IntOrString: invalid type: neither int nor percentage")]
    OtherType,
}

/// The number itself, or `total` times the percentage, rounded up or down.
///
/// # Errors
/// When `value` is neither a whole number nor a percentage.
pub fn scaled_value(value: &Value, total: i64, round_up: bool) -> Result<i64, IntOrStringError> {
    match value {
        Value::Number(number) => number.as_i64().ok_or(IntOrStringError::OtherType),
        Value::String(text) => scaled_text(text, total, round_up),
        _ => Err(IntOrStringError::OtherType),
    }
}

/// As [`scaled_value`] for the text of a percentage.
///
/// # Errors
/// When `text` is no percentage.
pub fn scaled_text(text: &str, total: i64, round_up: bool) -> Result<i64, IntOrStringError> {
    let percent = percent(text)?;
    let product = i128::from(percent) * i128::from(total);
    let (quotient, rest) = (product.div_euclid(100), product.rem_euclid(100));
    let rounded = if round_up && rest != 0 { quotient + 1 } else { quotient };
    Ok(i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX }))
}

/// The number before `%`.
///
/// # Errors
/// When `text` is no percentage.
pub fn percent(text: &str) -> Result<i64, IntOrStringError> {
    let digits = text.strip_suffix('%').ok_or(IntOrStringError::NotPercentage)?;
    digits.parse::<i64>().map_err(|_| {
        let cause = format!("strconv.Atoi: parsing {}: invalid syntax", quote(digits));
        IntOrStringError::NotNumber(quote(text), cause)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scales() {
        let check = |value: Value, total, up, expected| {
            assert_eq!(scaled_value(&value, total, up), Ok(expected), "{value} of {total}");
        };
        check(json!(3), 10, true, 3);
        check(json!("25%"), 3, true, 1);
        check(json!("25%"), 3, false, 0);
        check(json!("100%"), 7, false, 7);
        check(json!("0%"), 7, true, 0);
        assert_eq!(scaled_value(&json!("3"), 1, true), Err(IntOrStringError::NotPercentage));
        assert_eq!(
            scaled_value(&json!("x%"), 1, true).unwrap_err().to_string(),
            "invalid value for IntOrString: invalid value \"x%\": strconv.Atoi: parsing \"x\": invalid syntax"
        );
    }
}
