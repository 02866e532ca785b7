//! Rules of probes and lifecycle hooks.

use meta::{FieldError, names};

use crate::rules::at::{At, Errors};
use crate::view::View;

/// Checks a probe; `kind` is the field it is in.
pub(super) fn probe(probe: &At<'_>, grace: Option<i64>, kind: &str, errors: &mut Errors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, errors);
    let counts = [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ];
    for field in counts {
        probe.field(field).not_negative(errors);
    }
    let termination = probe.some("terminationGracePeriodSeconds");
    if let Some(seconds) = termination.as_ref().filter(|seconds| seconds.number() <= 0) {
        seconds.invalid("must be greater than 0", errors);
    }
    match kind {
        "readinessProbe" => {
            if let Some(seconds) = termination {
                seconds.invalid("must not be set for readinessProbes", errors);
            }
        }
        _ => {
            let threshold = probe.field("successThreshold");
            if threshold.number() != 1 {
                errors.push(FieldError::invalid(&threshold.path, threshold.number(), "must be 1"));
            }
        }
    }
}

/// Checks a container's lifecycle hooks.
pub(super) fn lifecycle(lifecycle: &At<'_>, grace: Option<i64>, os: &str, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if let Some(found) = lifecycle.some(hook) {
            handler(&found, &["exec", "httpGet", "tcpSocket", "sleep"], grace, errors);
        }
    }
    if let Some(signal) = lifecycle.some("stopSignal")
        && os.is_empty()
    {
        signal.forbidden("may not be set for containers with empty `spec.os.name`", errors);
    }
}

/// Exactly one of the ways to probe or to hook.
fn handler(at: &At<'_>, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut count = 0;
    for kind in kinds {
        let Some(found) = at.some(kind) else { continue };
        if count > 0 {
            found.forbidden("may not specify more than 1 handler type", errors);
            continue;
        }
        count += 1;
        match *kind {
            "exec" => {
                if found.items("command").is_empty() {
                    found.field("command").required("", errors);
                }
            }
            "httpGet" => http_get(&found, errors),
            "sleep" => sleep(&found, grace, errors),
            "grpc" => found.field("port").port(errors),
            _ => found.field("port").port_or_name(errors),
        }
    }
    if count == 0 {
        at.required("must specify a handler type", errors);
    }
}

fn http_get(at: &At<'_>, errors: &mut Errors) {
    at.field("path").needed(errors);
    at.field("port").port_or_name(errors);
    let scheme = at.field("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme.str()) {
        scheme.unsupported(&["HTTP", "HTTPS"], errors);
    }
    for header in at.each("httpHeaders") {
        let name = header.str_of("name");
        for problem in names::is_http_header_name(name) {
            errors.push(FieldError::invalid(at.path.child("httpHeaders"), name, problem));
        }
    }
}

fn sleep(at: &At<'_>, grace: Option<i64>, errors: &mut Errors) {
    let (seconds, Some(grace)) = (at.int("seconds").unwrap_or_default(), grace) else { return };
    if !(0..=grace).contains(&seconds) {
        let text =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(&at.path, seconds, text));
    }
}
