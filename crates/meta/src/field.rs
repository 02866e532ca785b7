//! Where in an object something is wrong, and what: field paths and field errors, with
//! the texts clients of Kubernetes parse. Knows no rule.

use std::fmt;

use serde_json::Value;

use crate::quote::quote;

/// Path of a field such as `spec.containers[0].env[NAME]`. Extending a path makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path that starts with `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The empty path: the object itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The field `name` of this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let dot = if self.0.is_empty() { "" } else { "." };
        Self([self.0.as_str(), dot, name].concat())
    }

    /// Element `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Entry `key` of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self([self.0.as_str(), "[", key, "]"].concat())
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.0
    }
}

impl From<&FieldPath> for String {
    fn from(path: &FieldPath) -> Self {
        path.0.clone()
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldErrorKind {
    /// Absent or empty though required.
    Required,
    /// Malformed or out of range.
    Invalid,
    /// Well formed but not permitted here.
    Forbidden,
    /// Not one of an enumeration.
    NotSupported,
    /// Must be unique and is not.
    Duplicate,
    /// Text longer than allowed; the value is not repeated.
    TooLong,
    /// Text shorter than allowed.
    TooShort,
    /// More items than allowed.
    TooMany,
    /// Fewer items than allowed.
    TooFew,
    /// Refers to something that does not exist.
    NotFound,
    /// Our fault.
    Internal,
}

impl FieldErrorKind {
    /// The machine-readable cause in `Status.details.causes[].reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }

    /// The words a message starts with.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::Forbidden => "Forbidden",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }

    const fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::TooShort | Self::Internal
        )
    }
}

/// One thing wrong with one field. Displays as `path: Invalid value: "x": detail`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Path of the field, see [`FieldPath`].
    pub path: String,
    /// The offending value; not shown by kinds that hide it.
    pub value: Value,
    /// What to do about it; may be empty.
    pub detail: String,
    /// How the value is shown where that is not its JSON; empty where it is left out.
    shown: Option<String>,
}

impl FieldError {
    /// An error of any kind.
    pub fn new(
        kind: FieldErrorKind,
        path: impl Into<String>,
        value: Value,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, path: path.into(), value, detail: detail.into(), shown: None }
    }

    /// Shows the value as this text; with an empty text, not at all.
    #[must_use]
    pub fn shown_as(mut self, text: impl Into<String>) -> Self {
        self.shown = Some(text.into());
        self
    }

    /// A required field is absent or empty.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    /// A malformed value.
    pub fn invalid(
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value.into(), detail)
    }

    /// A value that is not permitted here.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// A value outside an enumeration; `supported` is listed in the order given.
    pub fn not_supported<T: AsRef<str>>(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: &[T],
    ) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|v| quote(v.as_ref())).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, value.into(), detail)
    }

    /// A value that must be unique.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value.into(), "")
    }

    /// A text of more than `limit` bytes.
    pub fn too_long(path: impl Into<String>, limit: usize) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {limit} {unit}");
        Self::new(FieldErrorKind::TooLong, path, Value::Null, detail)
    }

    /// A list of `actual` items where at most `limit` are allowed.
    pub fn too_many(path: impl Into<String>, actual: usize, limit: usize) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        let detail = format!("must have at most {limit} {unit}");
        Self::new(FieldErrorKind::TooMany, path, Value::from(actual), detail)
    }

    /// A reference to something absent.
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value.into(), "")
    }

    /// A failure of the server while validating.
    pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, path, Value::Null, detail)
    }

    /// The message without the path.
    #[must_use]
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_owned();
        let shown = || self.shown.clone().unwrap_or_else(|| show(&self.value));
        if let Some(value) = self.kind.shows_value().then(shown).filter(|text| !text.is_empty()) {
            out.push_str(": ");
            out.push_str(&value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}

/// What is wrong with one object: as many errors as a client can make something of. Objects come from clients, and
/// one of a few megabytes could break rules so often that to say so would take all memory there is.
#[derive(Debug, Default)]
pub struct FieldErrors {
    errors: Vec<FieldError>,
    size: usize,
}

impl FieldErrors {
    /// The most errors that are kept.
    const MOST: usize = 2000;
    /// The most that they may take together, about, in bytes.
    const MOST_BYTES: usize = 4 << 20;

    /// Nothing is wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no more errors are kept: there is no use in looking for others.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.errors.len() >= Self::MOST || self.size >= Self::MOST_BYTES
    }

    /// Adds an error, unless there are too many already.
    pub fn push(&mut self, error: FieldError) {
        if !self.is_full() {
            self.size += error.path.len() + error.detail.len() + size(&error.value);
            self.errors.push(error);
        }
    }

    /// Adds errors, as long as there are not too many.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        for error in errors {
            self.push(error);
            if self.is_full() {
                break;
            }
        }
    }
}

impl std::ops::Deref for FieldErrors {
    type Target = [FieldError];

    fn deref(&self) -> &[FieldError] {
        &self.errors
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl From<FieldErrors> for Vec<FieldError> {
    fn from(errors: FieldErrors) -> Self {
        errors.errors
    }
}

/// How many bytes a value takes, about.
fn size(value: &Value) -> usize {
    const EACH: usize = 32;
    match value {
        Value::String(text) => EACH + text.len(),
        Value::Array(items) => items.iter().map(size).sum::<usize>() + EACH,
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| name.len() + EACH + size(field)).sum::<usize>() + EACH
        }
        _ => EACH,
    }
}

/// Text of several errors: one alone, or `[a, b]`, each text once.
#[must_use]
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut seen = std::collections::HashSet::with_capacity(errors.len());
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if seen.insert(text.clone()) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.swap_remove(0) } else { format!("[{}]", texts.join(", ")) }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(_) | Value::Object(_) => value
            .to_string()
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let path = FieldPath::new("spec").child("containers").index(0).child("env").key("A");
        assert_eq!(path.to_string(), "spec.containers[0].env[A]");
        assert_eq!(FieldPath::root().child("spec").as_str(), "spec");
    }

    #[test]
    fn messages() {
        let check = |error: FieldError, expected: &str| assert_eq!(error.to_string(), expected);
        check(FieldError::required("a.b", ""), "a.b: Required value");
        check(FieldError::required("a", "name it"), "a: Required value: name it");
        check(FieldError::invalid("a", "x", "bad"), "a: Invalid value: \"x\": bad");
        check(FieldError::invalid("a", -1, "bad"), "a: Invalid value: -1: bad");
        check(
            FieldError::invalid("a", json!({"b": "<"}), "bad"),
            "a: Invalid value: {\"b\":\"\\u003c\"}: bad",
        );
        check(
            FieldError::not_supported("a", "x", &["B", "A"]),
            "a: Unsupported value: \"x\": supported values: \"B\", \"A\"",
        );
        check(FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes");
        check(FieldError::too_many("a", 3, 1), "a: Too many: 3: must have at most 1 item");
        check(FieldError::duplicate("a", "x"), "a: Duplicate value: \"x\"");
        check(FieldError::forbidden("a", "no"), "a: Forbidden: no");
        check(FieldError::invalid("a", 1, "no").shown_as("{}"), "a: Invalid value: {}: no");
        check(FieldError::invalid("a", 1, "no").shown_as(""), "a: Invalid value: no");
    }

    #[test]
    fn errors_are_bounded() {
        let mut errors = FieldErrors::new();
        errors.extend((0..10_000).map(|at| FieldError::required(format!("a[{at}]"), "")));
        assert!(errors.is_full() && errors.len() == FieldErrors::MOST);
        let large = Value::from(vec!["x".repeat(1000); 1000]);
        let mut errors = FieldErrors::new();
        errors.extend((0..10_000).map(|_| FieldError::invalid("a", large.clone(), "")));
        assert!(errors.is_full() && errors.len() < 10, "{}", errors.len());
    }

    #[test]
    fn aggregates_drop_repeats() {
        let a = FieldError::required("a", "");
        assert_eq!(aggregate(&[a.clone(), a.clone()]), "a: Required value");
        let both = aggregate(&[a.clone(), FieldError::required("b", ""), a]);
        assert_eq!(both, "[a: Required value, b: Required value]");
    }
}
