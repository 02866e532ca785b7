//! Decoding request bodies into objects of built-in kinds: one pass that checks types, unknown and
//! duplicate fields, and drops what Kubernetes drops.
//!
//! Owns the texts of decoding errors, which clients parse. Refuses to know what values mean.

mod pass;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::types::{self, Of, Type};
use pass::{Pass, Seed};

/// What to do about unknown and duplicate fields: the `fieldValidation` parameter of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in a warning.
    #[default]
    Warn,
    /// Refuse the object.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; empty means [`FieldValidation::Warn`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Warn" => Self::Warn,
            "Ignore" => Self::Ignore,
            "Strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// A decoded object, and what to warn its sender of.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object. `apiVersion` and `kind` are set, nulls and empty lists and maps are gone, quantities
    /// and times are canonical.
    pub value: Value,
    /// One text per unknown or duplicate field.
    pub warnings: Vec<String>,
}

/// A body that is no object of the expected kind: answered with 400 `BadRequest` and this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Decodes a JSON body that must hold an object of the given built-in kind.
///
/// # Errors
/// With upstream's message when the body is no JSON, of another kind or version, when a value has the wrong
/// type, or, for [`FieldValidation::Strict`], when a field is unknown or duplicate.
pub fn decode(
    expected: &meta::GroupVersionKind,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let of = type_of(expected)?;
    let mut pass = Pass::new(of);
    let read = Seed { pass: &mut pass, of: Of::Object(of.id) }.deserialize(&mut reader);
    let read = read.and_then(|value| reader.end().map(|()| value));
    match read {
        // Not even an object: there is no kind to speak of.
        Ok(None) if pass.failure.is_some() => {
            let got = pass
                .failure
                .as_deref()
                .and_then(|text| text.split(" into Go").next())
                .unwrap_or_default();
            let problem = format!("{got} into Go value of type {TYPE_META}");
            Err(unrecognized(expected, &problem, body))
        }
        Ok(value) => finish(expected, pass, value, validation),
        Err(error) => Err(unreadable(expected, &error, body)),
    }
}

/// Decodes an object that was already parsed, such as the outcome of a patch.
///
/// # Errors
/// As [`decode`]; duplicate fields cannot be seen any more.
pub fn decode_value(
    expected: &meta::GroupVersionKind,
    object: &Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let of = type_of(expected)?;
    let mut pass = Pass::new(of);
    let read = Seed { pass: &mut pass, of: Of::Object(of.id) }.deserialize(object);
    let value = read.map_err(|error| DecodeError(error.to_string()))?;
    finish(expected, pass, value, validation)
}

/// Parses JSON of no particular type, such as a patch, and lists its duplicate fields as decoding would.
///
/// # Errors
/// When the body is no JSON, or nests too deep.
pub fn parse(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let mut pass = Pass::untyped();
    let read = Seed { pass: &mut pass, of: Of::Any }.deserialize(&mut reader);
    let value = read
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| DecodeError(syntax(&error, body)))?;
    if let Some(problem) = pass.failure {
        return Err(DecodeError(problem));
    }
    Ok((value.unwrap_or(Value::Null), pass.strict))
}

/// The text that refuses a value where Go wants one of another type.
#[must_use]
pub fn mismatch(value: &Value, wanted: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go value of type {wanted}")
}

/// The text that refuses an object with unknown or duplicate fields, or none if there are none.
#[must_use]
pub fn strict_error(fields: &[String]) -> Option<String> {
    (!fields.is_empty()).then(|| format!("strict decoding error: {}", fields.join(", ")))
}

fn type_of(expected: &meta::GroupVersionKind) -> Result<&'static Type, DecodeError> {
    types::by_kind(&expected.group, &expected.version, &expected.kind)
        .ok_or_else(|| DecodeError(unregistered(&expected.kind, &expected.api_version())))
}

fn finish(
    expected: &meta::GroupVersionKind,
    pass: Pass,
    value: Option<Value>,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let mut value = value.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let (kind, version) = identify(expected, &mut value)?;
    let handled = |problem: String| {
        DecodeError(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {problem}",
            expected.kind
        ))
    };
    if let Some(problem) = pass.failure {
        return Err(handled(problem));
    }
    match validation {
        FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
        FieldValidation::Warn => Ok(Decoded { value, warnings: pass.strict }),
        FieldValidation::Strict => match strict_error(&pass.strict) {
            Some(problem) => Err(handled(problem)),
            None => Ok(Decoded { value, warnings: Vec::new() }),
        },
    }
}

/// Checks and fills in `apiVersion` and `kind`; returns the kind and version the object claims.
fn identify(
    expected: &meta::GroupVersionKind,
    value: &mut Value,
) -> Result<(String, String), DecodeError> {
    let wanted = expected.api_version();
    let claimed = |value: &Value, field: &str| {
        value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let kind = claimed(value, "kind").unwrap_or_else(|| expected.kind.clone());
    let api_version = claimed(value, "apiVersion").unwrap_or_else(|| wanted.clone());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version.as_str()));
    let options = expected.kind.ends_with("Options") && kind == expected.kind;
    if kind != expected.kind {
        let handled =
            format!("{kind} in version {version:?} cannot be handled as a {}", expected.kind);
        return Err(DecodeError(match types::by_kind(group, version, &kind) {
            None => format!("{handled}: {}", unregistered(&kind, &api_version)),
            Some(_) if api_version == wanted => format!(
                "{handled}: converting ({version}.{kind}) to ({}.{}): unknown conversion",
                internal_package(&expected.group),
                expected.kind
            ),
            Some(_) => different_version(&api_version, &wanted),
        }));
    }
    if api_version != wanted && !options {
        return Err(DecodeError(match types::by_kind(group, version, &kind) {
            Some(_) => different_version(&api_version, &wanted),
            None => format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {}",
                unregistered(&kind, &api_version)
            ),
        }));
    }
    let version = version.to_owned();
    if let Value::Object(object) = value {
        object.insert("apiVersion".to_owned(), Value::String(wanted));
        object.insert("kind".to_owned(), Value::String(kind.clone()));
    }
    Ok((kind, version))
}

fn different_version(got: &str, wanted: &str) -> String {
    format!(
        "the API version in the data ({got}) does not match the expected API version ({wanted})"
    )
}

fn unregistered(kind: &str, api_version: &str) -> String {
    format!(
        "no kind {kind:?} is registered for version {api_version:?} in scheme \
         \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
    )
}

/// The Go package of a group's internal types, which error texts name.
fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    }
}

/// How Go prints the type that holds `apiVersion` and `kind`.
const TYPE_META: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
                         Kind string \"json:\\\"kind,omitempty\\\"\" }";

/// The text for a body that is no JSON object.
fn unreadable(
    expected: &meta::GroupVersionKind,
    error: &serde_json::Error,
    body: &[u8],
) -> DecodeError {
    unrecognized(expected, &syntax(error, body), body)
}

fn unrecognized(expected: &meta::GroupVersionKind, problem: &str, body: &[u8]) -> DecodeError {
    DecodeError(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: \
         {problem} ({})",
        expected.kind,
        summary(body)
    ))
}

/// What is wrong with text that is no JSON, in Go's words where there are some.
pub(crate) fn syntax(error: &serde_json::Error, body: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    let at = offset(body, error.line(), error.column()).map(|end| end.saturating_sub(1));
    let literal = at.and_then(|at| misspelt(body, at));
    let context = match reason {
        "expected ident" => literal.as_deref().unwrap_or("looking for beginning of value"),
        "expected value" => "looking for beginning of value",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "expected `:`" => "after object key",
        "key must be a string" | "trailing comma" => "looking for beginning of object key string",
        "trailing characters" => "after top-level value",
        "control character (\\u0000-\\u001F) found while parsing a string" => "in string literal",
        "invalid escape" => "in string escape code",
        "invalid number" => "in numeric literal",
        _ => return text,
    };
    match at.and_then(|at| body.get(at)) {
        Some(b'\'') => format!("invalid character '\\'' {context}"),
        Some(b'"') => format!("invalid character '\"' {context}"),
        Some(byte) => {
            let quoted = meta::quote(&char::from(*byte).to_string());
            format!("invalid character '{}' {context}", quoted.trim_matches('"'))
        }
        None => text,
    }
}

/// Which of JSON's words the byte at `at` does not continue.
fn misspelt(body: &[u8], at: usize) -> Option<String> {
    let before = body.get(..at)?;
    ["null", "true", "false"].iter().find_map(|word| {
        let given =
            (1..word.len()).rev().find(|given| before.ends_with(&word.as_bytes()[..*given]))?;
        let expected = char::from(word.as_bytes()[given]);
        Some(format!("in literal {word} (expecting '{expected}')"))
    })
}

/// The position of a line and column, both counted from one.
fn offset(body: &[u8], line: usize, column: usize) -> Option<usize> {
    let mut start = 0;
    for _ in 1..line {
        start += body.get(start..)?.iter().position(|byte| *byte == b'\n')? + 1;
    }
    Some(start + column)
}

/// The first bytes of a body for an error text: readable if it looks like JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const LONGEST: usize = 30;
    let cut = &body[..body.len().min(LONGEST)];
    let more = if body.len() > LONGEST { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(cut)),
        Some(_) => {
            let hex: String = cut.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

#[cfg(test)]
mod tests;
