//! `DeleteOptions`, from the body or from the query.

use meta::Status;
use serde_json::Value;

use crate::params::{self, Propagation, refuse};
use crate::pipeline::{Context, decode_options};

/// How to delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) grace_period: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl Options {
    /// Reads the options of a request: those of the body if it has one, else those of the query.
    ///
    /// # Errors
    /// 400 for a body that cannot be read, 422 for options that contradict one another.
    pub(crate) fn read(context: &Context<'_>, body: &[u8]) -> Result<Self, Status> {
        let params = &context.request.params;
        let value = decode_options(body)?;
        let options = if value.is_null() {
            Self {
                grace_period: params.grace_period,
                propagation: params.propagation,
                orphan_dependents: params.orphan_dependents,
                uid: None,
                resource_version: None,
                dry_run: params.dry_run,
            }
        } else {
            let mut options = Self::of(&value)?;
            options.dry_run |= params.dry_run;
            options
        };
        Ok(options)
    }

    /// Reads `DeleteOptions`.
    ///
    /// # Errors
    /// 422 for an unknown propagation policy or dry-run directive.
    pub(crate) fn of(value: &Value) -> Result<Self, Status> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut errors = Vec::new();
        let orphan_dependents = value["orphanDependents"].as_bool();
        let policy = value["propagationPolicy"].as_str();
        let propagation = params::propagation(policy, orphan_dependents, &mut errors);
        let directives: Vec<&str> =
            value["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let dry_run = params::dry_run(&directives, &mut errors);
        refuse("DeleteOptions", errors)?;
        Ok(Self {
            grace_period: value["gracePeriodSeconds"].as_i64(),
            propagation,
            orphan_dependents,
            uid: text(&value["preconditions"]["uid"]),
            resource_version: text(&value["preconditions"]["resourceVersion"]),
            dry_run,
        })
    }
}
