//! Queries, and the texts that refuse them.

use super::*;

/// The message about a query of a request with `verb`, or `ok`.
fn check(verb: Verb, query: &str, expected: &str) {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let message =
        Params::parse(verb, pairs).map_or_else(|status| status.message, |_| "ok".to_owned());
    assert_eq!(message, expected, "{verb} {query}");
}

#[test]
fn the_first_of_repeated_parameters_counts() {
    let pairs = [("fieldSelector", "metadata.name=a"), ("fieldSelector", ""), ("limit", "1")];
    let params = Params::parse(Verb::List, pairs).expect("valid");
    assert_eq!((params.field_selector.as_str(), params.limit), ("metadata.name=a", 1));
}

#[test]
fn each_verb_reads_its_own_parameters() {
    check(Verb::Get, "limit=x&dryRun=x&resourceVersion=1", "ok");
    check(Verb::Create, "limit=x&propagationPolicy=x&dryRun=All", "ok");
    check(Verb::List, "dryRun=x&fieldValidation=x", "ok");
}

#[test]
fn numbers_are_refused_in_the_words_of_go() {
    check(Verb::List, "limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax");
    check(Verb::List, "limit=", "strconv.ParseInt: parsing \"\": invalid syntax");
    let huge = "99999999999999999999";
    let text = format!("strconv.ParseInt: parsing \"{huge}\": value out of range");
    check(Verb::Delete, &format!("gracePeriodSeconds={huge}"), &text);
    check(Verb::List, "limit=-5", "ok");
}

#[test]
fn options_of_writes() {
    check(Verb::Create, "dryRun=All&dryRun=All", "ok");
    check(
        Verb::Create,
        "dryRun=none",
        "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"none\"]: supported values: \"All\"",
    );
    check(
        Verb::Update,
        "fieldValidation=strict&dryRun=",
        "UpdateOptions.meta.k8s.io \"\" is invalid: [dryRun: Unsupported value: [\"\"]: supported values: \"All\", fieldValidation: Unsupported value: \"strict\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]",
    );
    check(
        Verb::Patch,
        &format!("fieldManager={}", "m".repeat(129)),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes",
    );
    check(
        Verb::Create,
        "fieldManager=a\nb",
        "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
    );
}

#[test]
fn options_of_deletions() {
    check(
        Verb::Delete,
        "propagationPolicy=Never&orphanDependents=true",
        "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Invalid value: \"Never\": orphanDependents and deletionPropagation cannot be both set, propagationPolicy: Unsupported value: \"Never\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"]",
    );
    check(Verb::Delete, "ignoreStoreReadErrorWithClusterBreakingPotential=true", "ok");
    check(
        Verb::DeleteCollection,
        "sendInitialEvents=true&propagationPolicy=Never",
        "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
    );
}

#[test]
fn how_versions_bind() {
    let list = |query: &str, errors: &str| {
        let message = match errors {
            "ok" => errors.to_owned(),
            _ => format!("ListOptions.meta.k8s.io \"\" is invalid: {errors}"),
        };
        check(Verb::List, query, &message);
    };
    let unset = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
    list("resourceVersionMatch=Exact", unset);
    list("resourceVersionMatch=Exact&resourceVersion=5", "ok");
    list("resourceVersionMatch=NotOlderThan&resourceVersion=0", "ok");
    list(
        "resourceVersionMatch=Exact&resourceVersion=0",
        "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
    );
    list(
        "resourceVersionMatch=Newest&continue=x&sendInitialEvents=false",
        &format!(
            "[{unset}, resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided, resourceVersionMatch: Unsupported value: \"Newest\": supported values: \"Exact\", \"NotOlderThan\", \"\", sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]"
        ),
    );
    let watch = |query: &str, errors: &str| {
        let message = match errors {
            "ok" => errors.to_owned(),
            _ => format!("ListOptions.meta.k8s.io \"\" is invalid: {errors}"),
        };
        check(Verb::Watch, query, &message);
    };
    let needs = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    watch("sendInitialEvents=true", needs);
    watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "ok");
    watch(
        "sendInitialEvents=true&resourceVersionMatch=Exact",
        &format!(
            "[{needs}, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]"
        ),
    );
    watch(
        "resourceVersionMatch=NotOlderThan&resourceVersion=4",
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
    );
}

#[test]
fn a_watch_from_nowhere_begins_with_what_there_is() {
    for (query, expected) in [("", Some(true)), ("0", Some(true)), ("7", None)] {
        let params = Params::parse(Verb::Watch, [("resourceVersion", query)]).expect("valid");
        assert_eq!(params.send_initial_events, expected, "{query}");
    }
}

#[test]
fn managers_are_named_after_their_clients() {
    let named = |agent: &str| {
        let mut params = Params::default();
        params.manage_as(agent);
        params.field_manager
    };
    assert_eq!(named("kubectl/v1.33.0 (linux/amd64) kubernetes/abc"), "kubectl");
    assert_eq!(named("Mozilla\u{7}"), "Mozilla");
    assert_eq!(named(&"ä".repeat(100)).len(), 128);
    let apply = Params::default().check_patch(PatchType::Apply).expect_err("no manager");
    assert_eq!(
        apply.message,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let forced = Params { force: Some(false), ..Params::default() };
    let refused = forced.check_patch(PatchType::Merge).expect_err("no apply");
    assert_eq!(
        refused.message,
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
}
