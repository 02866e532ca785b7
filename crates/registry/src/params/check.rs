//! The rules that parameters must keep, reported together as Kubernetes reports them.
//!
//! Refuses to know how parameters are spelled in a query.

use meta::{FieldError, Status};

use super::{FieldValidation, Params, Raw, VersionMatch, dry_run, propagation, refuse};

/// The most bytes of a field manager's name.
pub(super) const MOST_MANAGER: usize = 128;

/// Options of a create, update or patch.
pub(super) fn check_write(params: &mut Params, raw: &Raw<'_>, kind: &str) -> Result<(), Status> {
    let mut errors = field_manager(&params.field_manager, "fieldManager");
    params.dry_run = dry_run(&raw.dry_run, &mut errors);
    params.field_validation = FieldValidation::parse(raw.field_validation).unwrap_or_else(|| {
        let supported = ["", "Ignore", "Strict", "Warn"];
        let given = raw.field_validation;
        errors.push(FieldError::not_supported("fieldValidation", given, &supported));
        FieldValidation::Warn
    });
    refuse(kind, errors)
}

/// The name of whoever makes a change: not long, and printable.
pub(crate) fn field_manager(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > MOST_MANAGER {
        errors.push(FieldError::too_long(path, MOST_MANAGER));
    }
    for (at, character) in name.char_indices().filter(|(_, character)| !printable(*character)) {
        let code = u32::from(character);
        let detail = format!("invalid character U+{code:04X} (at position {at})");
        errors.push(FieldError::invalid(path, name, detail));
    }
    errors
}

/// As Go has it: letters, marks, numbers, punctuation, symbols, and the ASCII space.
pub(super) fn printable(character: char) -> bool {
    character == ' ' || !(character.is_control() || character.is_whitespace())
}

/// Options of a deletion that come with the query.
pub(super) fn check_delete(params: &mut Params, raw: &Raw<'_>) -> Result<(), Status> {
    let mut errors = Vec::new();
    params.propagation = propagation(raw.propagation, params.orphan_dependents, &mut errors);
    params.dry_run = dry_run(&raw.dry_run, &mut errors);
    refuse("DeleteOptions", errors)
}

/// Options of a list or watch.
pub(super) fn check_list(params: &mut Params, raw: &Raw<'_>, watch: bool) -> Result<(), Status> {
    let mut matching = raw.version_match;
    let legacy = matches!(params.resource_version.as_str(), "" | "0");
    // A watch from nowhere begins with what there is.
    if watch && legacy && matching.is_empty() && params.send_initial_events.is_none() {
        params.send_initial_events = Some(true);
        matching = "NotOlderThan";
    }
    let errors = if watch { of_watch(params, matching) } else { of_list(params, matching) };
    params.version_match = match matching {
        "Exact" => Some(VersionMatch::Exact),
        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
        _ => None,
    };
    refuse("ListOptions", errors)
}

const MATCH: &str = "resourceVersionMatch";
const INITIAL: &str = "sendInitialEvents";

fn of_list(params: &Params, matching: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let forbid = |field: &str, detail: &str, errors: &mut Vec<FieldError>| {
        errors.push(FieldError::forbidden(field, detail));
    };
    if !matching.is_empty() && params.resource_version.is_empty() {
        let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        forbid(MATCH, detail, &mut errors);
    }
    if !matching.is_empty() && !params.continue_token.is_empty() {
        let detail = "resourceVersionMatch is forbidden when continue is provided";
        forbid(MATCH, detail, &mut errors);
    }
    if !matches!(matching, "" | "Exact" | "NotOlderThan") {
        let supported = ["Exact", "NotOlderThan", ""];
        errors.push(FieldError::not_supported(MATCH, matching, &supported));
    }
    if matching == "Exact" && params.resource_version == "0" {
        let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        forbid(MATCH, detail, &mut errors);
    }
    if params.send_initial_events.is_some() {
        forbid(INITIAL, "sendInitialEvents is forbidden for list", &mut errors);
    }
    errors
}

fn of_watch(params: &Params, matching: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let newest = matching == "NotOlderThan";
    if params.send_initial_events.is_some() && !newest {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(MATCH, detail));
    }
    if matching.is_empty() {
        return errors;
    }
    if params.send_initial_events.is_none() {
        let detail =
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(MATCH, detail));
    }
    if !newest {
        errors.push(FieldError::not_supported(MATCH, matching, &["NotOlderThan"]));
    }
    if !params.continue_token.is_empty() {
        let detail = "resourceVersionMatch is forbidden when continue is provided";
        errors.push(FieldError::forbidden(MATCH, detail));
    }
    errors
}
