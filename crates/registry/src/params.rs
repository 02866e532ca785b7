//! The query parameters of the API, parsed once with Kubernetes' errors.
//!
//! Owns their names and syntax. Which of them a verb heeds is the verb's own business.

mod check;

use std::time::Duration;

use meta::{FieldError, Status};

use crate::request::PatchType;
use crate::verb::Verb;
pub(crate) use check::field_manager;
use check::{MOST_MANAGER, check_delete, check_list, check_write, printable};

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
    /// `resourceVersionMatch`, once it was found to be one of the two.
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
    /// `fieldManager`; empty means unknown.
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
    /// Not of the query: why the user may not create what an apply or update does not find.
    pub create_refused: Option<Box<Status>>,
}

impl Params {
    /// Reads decoded pairs of a query for a request with `verb`, which says what parameters there are; others
    /// are ignored. Of a name given more than once the first value counts, except for `dryRun`: authorization
    /// goes by the first `fieldSelector` too, and must have seen the one that is applied.
    ///
    /// # Errors
    /// 400 for a value that cannot be read, 422 for values out of their set or that contradict one another.
    pub fn parse<'a>(
        verb: Verb,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Status> {
        let (mut params, mut raw) = (Self::default(), Raw::default());
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            if name == "dryRun" {
                raw.dry_run.push(value);
            } else if !seen.contains(&name) {
                seen.push(name);
                params.set(verb, &mut raw, name, value)?;
            }
        }
        params.finish(verb, &raw)?;
        Ok(params)
    }

    fn set<'a>(
        &mut self,
        verb: Verb,
        raw: &mut Raw<'a>,
        name: &str,
        value: &'a str,
    ) -> Result<(), Status> {
        match verb {
            Verb::Get if name == "resourceVersion" => value.clone_into(&mut self.resource_version),
            Verb::Get => {}
            Verb::List | Verb::Watch => self.set_list(raw, name, value)?,
            Verb::Create | Verb::Update | Verb::Patch => match name {
                "fieldManager" => value.clone_into(&mut self.field_manager),
                "fieldValidation" => raw.field_validation = value,
                "force" if verb == Verb::Patch => self.force = Some(truth(value)),
                _ => {}
            },
            Verb::Delete => self.set_delete(raw, name, value)?,
            Verb::DeleteCollection => {
                self.set_list(raw, name, value)?;
                self.set_delete(raw, name, value)?;
            }
        }
        Ok(())
    }

    fn set_list<'a>(
        &mut self,
        raw: &mut Raw<'a>,
        name: &str,
        value: &'a str,
    ) -> Result<(), Status> {
        match name {
            "labelSelector" => value.clone_into(&mut self.label_selector),
            "fieldSelector" => value.clone_into(&mut self.field_selector),
            "resourceVersion" => value.clone_into(&mut self.resource_version),
            "resourceVersionMatch" => raw.version_match = value,
            "limit" => self.limit = u64::try_from(number(value)?).unwrap_or(0),
            "continue" => value.clone_into(&mut self.continue_token),
            "watch" => self.watch = truth(value),
            "allowWatchBookmarks" => self.bookmarks = truth(value),
            "sendInitialEvents" => self.send_initial_events = Some(truth(value)),
            "timeoutSeconds" => {
                self.timeout =
                    u64::try_from(number(value)?).ok().filter(|s| *s > 0).map(Duration::from_secs);
            }
            _ => {}
        }
        Ok(())
    }

    fn set_delete<'a>(
        &mut self,
        raw: &mut Raw<'a>,
        name: &str,
        value: &'a str,
    ) -> Result<(), Status> {
        match name {
            "gracePeriodSeconds" => self.grace_period = Some(number(value)?),
            "propagationPolicy" => raw.propagation = Some(value),
            "orphanDependents" => self.orphan_dependents = Some(truth(value)),
            _ => {}
        }
        Ok(())
    }

    /// The rules of single values and between them.
    fn finish(&mut self, verb: Verb, raw: &Raw<'_>) -> Result<(), Status> {
        match verb {
            Verb::Get => Ok(()),
            Verb::Create => check_write(self, raw, "CreateOptions"),
            Verb::Update => check_write(self, raw, "UpdateOptions"),
            Verb::Patch => check_write(self, raw, "PatchOptions"),
            Verb::List => check_list(self, raw, false),
            Verb::Watch => check_list(self, raw, true),
            Verb::Delete => check_delete(self, raw),
            Verb::DeleteCollection => {
                check_list(self, raw, false)?;
                check_delete(self, raw)
            }
        }
    }

    /// Rules for patches: an apply names its manager, and nothing else can be forced.
    ///
    /// # Errors
    /// 422.
    pub fn check_patch(&self, patch: PatchType) -> Result<(), Status> {
        let error = match (patch, self.force) {
            (PatchType::Apply, _) if self.field_manager.is_empty() => {
                FieldError::required("fieldManager", "is required for apply patch")
            }
            (PatchType::Apply, _) | (_, None) => return Ok(()),
            (_, Some(_)) => {
                FieldError::forbidden("force", "may not be specified for non-apply patch")
            }
        };
        refuse("PatchOptions", vec![error])
    }

    /// Names the manager of a write after its client, where the query names none: the `User-Agent` up to a slash.
    pub fn manage_as(&mut self, user_agent: &str) {
        if !self.field_manager.is_empty() {
            return;
        }
        let name = user_agent.split('/').next().unwrap_or_default();
        for c in name.chars().filter(|c| printable(*c)) {
            if self.field_manager.len() + c.len_utf8() > MOST_MANAGER {
                break;
            }
            self.field_manager.push(c);
        }
    }
}

/// Values that are looked at when all are known.
#[derive(Default)]
struct Raw<'a> {
    dry_run: Vec<&'a str>,
    field_validation: &'a str,
    version_match: &'a str,
    propagation: Option<&'a str>,
}

/// Kubernetes reads a present but empty boolean as true.
fn truth(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

/// A whole number, as Go reads and refuses it.
fn number(value: &str) -> Result<i64, Status> {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let written = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().map_err(|_| {
        let problem = if written { "value out of range" } else { "invalid syntax" };
        Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: {problem}"))
    })
}

/// A 422 about options, unless there is no error.
pub(crate) fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(("meta.k8s.io", kind), "", errors))
}

/// Checks `dryRun`, whose one value is `All`.
pub(crate) fn dry_run(directives: &[&str], errors: &mut Vec<FieldError>) -> bool {
    if directives.iter().any(|directive| *directive != "All") {
        errors.push(FieldError::not_supported("dryRun", directives.to_vec(), &["All"]));
    }
    directives.contains(&"All")
}

/// Checks `propagationPolicy` and what contradicts it.
pub(crate) fn propagation(
    policy: Option<&str>,
    orphan_dependents: Option<bool>,
    errors: &mut Vec<FieldError>,
) -> Option<Propagation> {
    const FIELD: &str = "propagationPolicy";
    let policy = policy?;
    if orphan_dependents.is_some() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(FIELD, policy, detail));
    }
    let known = Propagation::parse(policy);
    if known.is_none() {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        errors.push(FieldError::not_supported(FIELD, policy, &supported));
    }
    known
}

#[cfg(test)]
mod tests;
