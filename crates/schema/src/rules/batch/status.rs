//! How the status of a Job may change: terminal conditions stay, and what they say agrees with the counters.
//!
//! What did not change is not looked at, lest a change of the specification block all that follows.

use std::collections::HashSet;

use meta::FieldError;
use serde_json::Value;

use super::indexes;
use crate::rules::at::{At, Errors};
use crate::rules::conditions::is;
use crate::view::{View, same};

/// Checks an update of the status.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let update = Update {
        status: At::root(new).field("status"),
        old: old.at("status"),
        spec: new.at("spec"),
    };
    update.counters(errors);
    update.completion(errors);
    update.finished(errors);
    update.indexes(errors);
    update.success(errors);
    update.transition(errors);
}

struct Update<'a> {
    status: At<'a>,
    old: &'a Value,
    spec: &'a Value,
}

impl Update<'_> {
    fn is(&self, kind: &str) -> bool {
        is(self.status.value, kind, "True")
    }

    fn was(&self, kind: &str) -> bool {
        is(self.old, kind, "True")
    }

    fn turned(&self, kind: &str) -> bool {
        self.is(kind) != self.was(kind)
    }

    fn changed(&self, field: &str) -> bool {
        !same(self.status.at(field), self.old.at(field))
    }

    fn count(&self, field: &str) -> i64 {
        self.status.field(field).number()
    }

    fn conditions(&self, detail: &str, errors: &mut Errors) {
        self.status.field("conditions").wrong(detail, errors);
    }

    fn counters(&self, errors: &mut Errors) {
        for field in ["active", "succeeded", "failed", "ready", "terminating"] {
            self.status.field(field).not_negative(errors);
        }
        let mut seen = HashSet::new();
        let uncounted = self.status.field("uncountedTerminatedPods");
        for uid in ["succeeded", "failed"].into_iter().flat_map(|list| uncounted.each(list)) {
            if uid.str().is_empty() {
                uid.invalid_text("must not be empty", errors);
            } else if !seen.insert(uid.str()) {
                uid.duplicate(errors);
            }
        }
    }

    fn completion(&self, errors: &mut Errors) {
        let (complete, failed) = (self.is("Complete"), self.is("Failed"));
        let (turned, time) = (self.turned("Complete"), self.status.field("completionTime"));
        if (turned || self.turned("Failed")) && complete && failed {
            self.conditions("cannot set Complete=True and Failed=true conditions", errors);
        }
        if (turned || self.turned("FailureTarget")) && complete && self.is("FailureTarget") {
            self.conditions("cannot set Complete=True and FailureTarget=true conditions", errors);
        }
        if turned || self.changed("completionTime") {
            if !time.value.is_null() && !complete {
                let text = "cannot set completionTime when there is no Complete=True condition";
                time.invalid(text, errors);
            }
            if time.value.is_null() && complete {
                time.required("completionTime is required for Complete jobs", errors);
            }
        }
        let began = self.status.at("startTime");
        if (self.changed("startTime") || self.changed("completionTime"))
            && !began.is_null()
            && !time.value.is_null()
            && time.str() < began.as_str().unwrap_or_default()
        {
            time.invalid("must be equal to or after `startTime`", errors);
        }
        if (self.turned("Failed") || self.changed("failedIndexes"))
            && failed
            && !self.is("FailureTarget")
        {
            let text = "cannot set Failed=True condition without the FailureTarget=true condition";
            self.conditions(text, errors);
        }
        if (turned || self.turned("SuccessCriteriaMet"))
            && complete
            && !self.is("SuccessCriteriaMet")
        {
            let text =
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
            self.conditions(text, errors);
        }
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    /// Whether a field of a finished Job is to be looked at.
    fn finished_with(&self, field: &str) -> bool {
        let was = self.was("Complete") || self.was("Failed");
        self.is_finished() && (!was || self.changed(field))
    }

    fn finished(&self, errors: &mut Errors) {
        if self.finished_with("active") && self.count("active") > 0 {
            self.status.field("active").invalid("active>0 is invalid for finished job", errors);
        }
        let nothing_to_do = self.spec.flag("suspend") && self.spec.int("completions") == Some(0);
        if self.finished_with("startTime") && !nothing_to_do && !self.status.has("startTime") {
            let start = self.status.field("startTime");
            start.required("startTime is required for finished job", errors);
        }
        let uncounted = self.status.field("uncountedTerminatedPods");
        if self.finished_with("uncountedTerminatedPods")
            && ["failed", "succeeded"].iter().any(|list| !uncounted.items(list).is_empty())
        {
            uncounted.invalid("must be empty for finished job", errors);
        }
    }

    fn indexes(&self, errors: &mut Errors) {
        let [done, lost] =
            ["completedIndexes", "failedIndexes"].map(|field| self.status.field(field));
        let [done_changed, lost_changed] =
            ["completedIndexes", "failedIndexes"].map(|field| self.changed(field));
        let completions = self.spec.int("completions");
        let by_index = self.spec.has("backoffLimitPerIndex");
        let mut format = |at: &At<'_>, name: &str| {
            if let Some(Err(problem)) = completions.map(|most| indexes::count(at.str(), most)) {
                at.invalid_text(format!("error parsing {name}: {problem}"), errors);
            }
        };
        if done_changed {
            format(&done, "completedIndexes");
        }
        if lost_changed && by_index && !lost.value.is_null() {
            format(&lost, "failedIndexes");
        }
        if done_changed && !done.str().is_empty() && self.spec.text("completionMode") != "Indexed" {
            let text = "cannot set non-empty completedIndexes when non-indexed completion mode";
            done.invalid(text, errors);
        }
        if lost_changed && !by_index && !lost.value.is_null() {
            let text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            lost.invalid(text, errors);
        }
        if (done_changed || lost_changed)
            && let Some(most) = completions
            && let Some(index) = indexes::overlap(done.str(), lost.str(), most)
        {
            let text = format!("failedIndexes and completedIndexes overlap at index: {index}");
            lost.invalid(text, errors);
        }
    }

    fn success(&self, errors: &mut Errors) {
        if self.finished_with("terminating") && self.count("terminating") > 0 {
            let terminating = self.status.field("terminating");
            terminating.invalid("terminating>0 is invalid for finished job", errors);
        }
        if (self.changed("ready") || self.changed("active"))
            && self.count("ready") > self.count("active")
        {
            self.status.field("ready").invalid("cannot set more ready pods than active", errors);
        }
        let met = self.is("SuccessCriteriaMet");
        if met && self.is("Failed") {
            self.conditions(
                "cannot set SuccessCriteriaMet=True and Failed=true conditions",
                errors,
            );
        }
        if met && self.is("FailureTarget") {
            let text = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
            self.conditions(text, errors);
        }
        if self.spec.has("successPolicy") && !met && self.is("Complete") {
            let text = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            self.conditions(text, errors);
        }
    }

    fn transition(&self, errors: &mut Errors) {
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if self.was(kind) && !self.is(kind) {
                let text = format!("cannot disable the terminal {kind}=True condition");
                self.conditions(&text, errors);
            }
        }
        let scalable = self.spec.text("completionMode") == "Indexed"
            && same(self.spec.at("completions"), self.spec.at("parallelism"));
        for (field, checked) in [("failed", true), ("succeeded", !scalable)] {
            if checked && self.count(field) < self.old.int(field).unwrap_or_default() {
                errors.push(FieldError::invalid(
                    self.status.path.child(field),
                    self.count(field),
                    format!("cannot decrease the {field} counter"),
                ));
            }
        }
        let time = self.status.field("completionTime");
        if !time.value.is_null() && self.old.has("completionTime") && self.changed("completionTime")
        {
            time.invalid("field is immutable", errors);
        }
        let resuming =
            is(self.old, "Suspended", "True") && is(self.status.value, "Suspended", "False");
        if self.changed("startTime")
            && !resuming
            && self.old.has("startTime")
            && !self.spec.flag("suspend")
        {
            let start = self.status.field("startTime");
            start.invalid("field is immutable for unsuspended job once set", errors);
        }
        let (was, met) = (self.was("SuccessCriteriaMet"), self.is("SuccessCriteriaMet"));
        if was && !met {
            self.conditions("cannot disable the SuccessCriteriaMet=True condition", errors);
        }
        if self.was("Complete") && !was && met {
            let text =
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            self.conditions(text, errors);
        }
    }
}
