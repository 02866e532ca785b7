//! Values with a syntax of their own: quantities, times, base64. Each is checked and made canonical.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What upstream says of text that is no quantity.
pub(crate) const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// A quantity in canonical form.
pub(crate) fn quantity(text: &str) -> Result<String, String> {
    let text = text.trim();
    text.parse::<meta::Quantity>()
        .map(|quantity| quantity.to_string())
        .map_err(|error| error.to_string())
}

/// A time of whole seconds, in UTC.
pub(crate) fn time(text: &str) -> Result<String, String> {
    meta::time::parse(text)
        .map(meta::time::seconds)
        .ok_or_else(|| unparsable(text, "2006-01-02T15:04:05Z07:00"))
}

/// A time with microseconds, in UTC.
pub(crate) fn micro_time(text: &str) -> Result<String, String> {
    meta::time::parse(text)
        .map(meta::time::micros)
        .ok_or_else(|| unparsable(text, "2006-01-02T15:04:05.000000Z07:00"))
}

fn unparsable(text: &str, layout: &str) -> String {
    let text = meta::quote(text);
    format!("parsing time {text} as {layout:?}: cannot parse {text} as \"2006\"")
}

/// Base64 without line breaks.
pub(crate) fn base64(text: &str) -> Result<String, String> {
    let joined: String;
    let text = if text.contains(['\n', '\r']) {
        joined = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        &joined
    } else {
        text
    };
    match STANDARD.decode(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    text.trim_end_matches('=').len() / 4 * 4
                }
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_values_canonical() {
        assert_eq!(quantity("1000m"), Ok("1".to_owned()));
        assert_eq!(quantity("abc"), Err(QUANTITY_FORMAT.to_owned()));
        assert_eq!(time("2024-05-01T10:00:00+02:00"), Ok("2024-05-01T08:00:00Z".to_owned()));
        assert_eq!(
            time("noon"),
            Err("parsing time \"noon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"noon\" as \"2006\"".to_owned())
        );
        assert_eq!(base64("aGVs\nbG8="), Ok("aGVsbG8=".to_owned()));
        assert_eq!(base64("not base64"), Err("illegal base64 data at input byte 3".to_owned()));
    }
}
