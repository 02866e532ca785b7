//! The query parameters of the API, parsed once with Kubernetes' errors.
//!
//! Owns their names and syntax. Which of them a verb heeds is the verb's own business.

use std::time::Duration;

use meta::{FieldError, FieldErrorKind, Status};

use crate::verb::Verb;

pub use schema::FieldValidation;

/// How `resourceVersion` binds a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// At that revision exactly.
    Exact,
    /// At that revision or any later one.
    NotOlderThan,
}

/// What becomes of the objects that name a deleted one as owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
}

impl Propagation {
    /// Reads `propagationPolicy`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "Orphan" => Some(Self::Orphan),
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            _ => None,
        }
    }
}

/// Everything a query may say, unset where it does not.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// `labelSelector`, unparsed.
    pub label_selector: String,
    /// `fieldSelector`, unparsed.
    pub field_selector: String,
    /// `resourceVersion`, unparsed.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub version_match: Option<VersionMatch>,
    /// `limit`; 0 is no limit.
    pub limit: u64,
    /// `continue`.
    pub continue_token: String,
    /// `watch` on a collection.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub timeout: Option<Duration>,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`.
    pub field_manager: String,
    /// `fieldValidation`.
    pub field_validation: FieldValidation,
    /// `force`, of an apply.
    pub force: Option<bool>,
    /// `gracePeriodSeconds`.
    pub grace_period: Option<i64>,
    /// `propagationPolicy`.
    pub propagation: Option<Propagation>,
    /// `orphanDependents`, the old spelling of it.
    pub orphan_dependents: Option<bool>,
}

impl Params {
    /// Reads decoded pairs of a query for a request with `verb`. Unknown names are ignored. Of a name
    /// given more than once the first value counts, except for `dryRun`: authorization goes by the first
    /// `fieldSelector` too, and must have seen the one that is applied.
    ///
    /// # Errors
    /// 400 for a value that cannot be read, 422 for one out of its set.
    pub fn parse<'a>(
        verb: Verb,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Status> {
        let mut params = Self::default();
        let kind = options_kind(verb);
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            if name != "dryRun" && seen.contains(&name) {
                continue;
            }
            seen.push(name);
            params.set(kind, name, value)?;
        }
        params.check(kind)?;
        Ok(params)
    }

    fn set(&mut self, kind: &str, name: &str, value: &str) -> Result<(), Status> {
        match name {
            "labelSelector" => value.clone_into(&mut self.label_selector),
            "fieldSelector" => value.clone_into(&mut self.field_selector),
            "resourceVersion" => value.clone_into(&mut self.resource_version),
            "resourceVersionMatch" => {
                self.version_match = match value {
                    "" => None,
                    "Exact" => Some(VersionMatch::Exact),
                    "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                    other => {
                        return Err(options_invalid(
                            kind,
                            "resourceVersionMatch",
                            other,
                            &["Exact", "NotOlderThan"],
                        ));
                    }
                };
            }
            "limit" => self.limit = u64::try_from(number(value)?).unwrap_or(0),
            "continue" => value.clone_into(&mut self.continue_token),
            "watch" => self.watch = truth(value),
            "allowWatchBookmarks" => self.bookmarks = truth(value),
            "sendInitialEvents" => self.send_initial_events = Some(truth(value)),
            "timeoutSeconds" => {
                self.timeout =
                    u64::try_from(number(value)?).ok().filter(|s| *s > 0).map(Duration::from_secs);
            }
            "dryRun" => match value {
                "" => {}
                "All" => self.dry_run = true,
                other => return Err(options_invalid(kind, "dryRun", other, &["All"])),
            },
            "fieldManager" => value.clone_into(&mut self.field_manager),
            "fieldValidation" => {
                self.field_validation = match value {
                    "" | "Warn" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    "Strict" => FieldValidation::Strict,
                    other => {
                        return Err(options_invalid(
                            kind,
                            "fieldValidation",
                            other,
                            &["Ignore", "Strict", "Warn", ""],
                        ));
                    }
                };
            }
            "force" => self.force = Some(truth(value)),
            "gracePeriodSeconds" => self.grace_period = Some(number(value)?),
            "propagationPolicy" if !value.is_empty() => {
                self.propagation = Some(Propagation::parse(value).ok_or_else(|| {
                    options_invalid(
                        kind,
                        "propagationPolicy",
                        value,
                        &["Foreground", "Background", "Orphan", "nil"],
                    )
                })?);
            }
            "orphanDependents" => self.orphan_dependents = Some(truth(value)),
            _ => {}
        }
        Ok(())
    }

    /// Rules between parameters.
    fn check(&self, kind: &str) -> Result<(), Status> {
        if self.field_manager.chars().count() > 128 {
            return Err(invalid(
                kind,
                "fieldManager",
                &self.field_manager,
                "may not be longer than 128",
            ));
        }
        Ok(())
    }
}

/// Kubernetes reads a present but empty boolean as true.
fn truth(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

fn number(value: &str) -> Result<i64, Status> {
    if value.is_empty() {
        return Ok(0);
    }
    value.parse().map_err(|_| {
        Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
    })
}

/// The kind whose name errors about options carry.
fn options_kind(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get => "GetOptions",
        Verb::List | Verb::Watch => "ListOptions",
    }
}

fn options_invalid(kind: &str, field: &str, value: &str, supported: &[&str]) -> Status {
    let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
    let detail = format!("supported values: {}", supported.join(", "));
    refuse(kind, FieldErrorKind::NotSupported, field, value, detail)
}

fn invalid(kind: &str, field: &str, value: &str, detail: &str) -> Status {
    refuse(kind, FieldErrorKind::Invalid, field, value, detail.to_owned())
}

pub(crate) fn refuse(
    kind: &str,
    error: FieldErrorKind,
    field: &str,
    value: &str,
    detail: String,
) -> Status {
    let error = FieldError { kind: error, path: field.to_owned(), value: value.into(), detail };
    Status::invalid(("meta.k8s.io", kind), "", vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_repeated_parameters_counts() {
        let pairs = [("fieldSelector", "metadata.name=a"), ("fieldSelector", ""), ("limit", "1")];
        let params = Params::parse(Verb::List, pairs).expect("valid");
        assert_eq!((params.field_selector.as_str(), params.limit), ("metadata.name=a", 1));
        let directives = [("dryRun", ""), ("dryRun", "All")];
        assert!(Params::parse(Verb::Create, directives).expect("valid").dry_run);
    }
}
