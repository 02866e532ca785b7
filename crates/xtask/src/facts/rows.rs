//! Generates `crates/registry/src/builtin.tsv`, the rows of the built-in kinds.
//!
//! Owns what the reference data does not say about a resource: where it is stored, whether its
//! specification bumps a generation, how durable and how secret it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

const OUTPUT: &str = "crates/registry/src/builtin.tsv";

const HEADER: &str = "\
# Rows of the built-in kinds, written by `cargo xtask facts`. Columns, `-` where empty:
# apiVersion, kind, plural, singular, scope, verbs, short names, categories,
# subresources (name[=kind]:verbs), type name, storage (key segment[@apiVersion]),
# selectable fields, traits (generation, unborn: none before the first change, relaxed[:namespace],
# sealed, ttl:seconds, returned: a deletion answers with the object, conditional: updates need a
# resourceVersion, upsert: an update may create, keeps:labels and keeps:metadata: what a write of
# the status leaves alone, node:the selectable field by which objects are indexed, deprecated:warning)
";

/// Resources whose specification changes bump `metadata.generation`.
const GENERATION: &[&str] = &[
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "admissionregistration.k8s.io/validatingadmissionpolicybindings",
    "admissionregistration.k8s.io/validatingwebhookconfigurations",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apps/daemonsets",
    "apps/deployments",
    "apps/replicasets",
    "apps/statefulsets",
    "batch/cronjobs",
    "batch/jobs",
    "discovery.k8s.io/endpointslices",
    "flowcontrol.apiserver.k8s.io/flowschemas",
    "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
    "networking.k8s.io/ingressclasses",
    "networking.k8s.io/ingresses",
    "networking.k8s.io/networkpolicies",
    "policy/poddisruptionbudgets",
    "resource.k8s.io/deviceclasses",
    "resource.k8s.io/resourceslices",
    "scheduling.k8s.io/priorityclasses",
    "storage.k8s.io/csidrivers",
    "/pods",
    "/podtemplates",
    "/replicationcontrollers",
];

/// Resources whose deletion answers with the deleted object, not with a `Status`.
const RETURNED: &[&str] = &[
    "/namespaces",
    "/persistentvolumeclaims",
    "/persistentvolumes",
    "/pods",
    "/podtemplates",
    "/resourcequotas",
    "/serviceaccounts",
    "/services",
    "resource.k8s.io/deviceclasses",
    "resource.k8s.io/resourceclaims",
    "resource.k8s.io/resourceclaimtemplates",
    "resource.k8s.io/resourceslices",
    "storage.k8s.io/csidrivers",
    "storage.k8s.io/csinodes",
    "storage.k8s.io/storageclasses",
    "storage.k8s.io/volumeattachments",
    "storage.k8s.io/volumeattributesclasses",
];

/// Resources whose updates must carry a resourceVersion.
const CONDITIONAL: &[&str] = &[
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "admissionregistration.k8s.io/validatingadmissionpolicybindings",
    "admissionregistration.k8s.io/validatingwebhookconfigurations",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apiregistration.k8s.io/apiservices",
    "coordination.k8s.io/leases",
    "node.k8s.io/runtimeclasses",
    "policy/poddisruptionbudgets",
    "storage.k8s.io/csidrivers",
    "storage.k8s.io/csinodes",
    "storage.k8s.io/csistoragecapacities",
    "storage.k8s.io/volumeattachments",
];

/// Resources which an update creates where they do not exist.
const UPSERT: &[&str] = &[
    "/endpoints",
    "/events",
    "/limitranges",
    "/services",
    "coordination.k8s.io/leases",
    "events.k8s.io/events",
    "node.k8s.io/runtimeclasses",
    "rbac.authorization.k8s.io/clusterrolebindings",
    "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/rolebindings",
    "rbac.authorization.k8s.io/roles",
];

/// Resources that have no generation before their specification changes.
const UNBORN: &[&str] = &["storage.k8s.io/csidrivers"];

/// Resources of which a write of the status leaves the labels alone.
const KEEPS_LABELS: &[&str] = &["apps/deployments"];

/// Resources of which a write of the status leaves the metadata alone.
const KEEPS_METADATA: &[&str] = &[
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apiregistration.k8s.io/apiservices",
    "flowcontrol.apiserver.k8s.io/flowschemas",
    "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
    "networking.k8s.io/servicecidrs",
    "resource.k8s.io/resourceclaims",
    "storage.k8s.io/volumeattachments",
];

/// Kinds that are questions or commands, not objects.
const UNSTORED: &[&str] = &["/bindings", "/componentstatuses"];
const UNSTORED_GROUPS: &[&str] = &["authentication.k8s.io", "authorization.k8s.io"];

/// Reads the reference data and writes the table.
pub(crate) fn generate(reference: &Path) -> anyhow::Result<()> {
    let resources = read(reference, "resources.json")?;
    let selectable = read(reference, "selectable-fields.json")?;
    let types = type_names(&read(reference, "schema-facts.json")?);
    let mut rows: Vec<&Value> =
        resources.as_array().context("resources.json: no array")?.iter().collect();
    rows.retain(|row| is_ga(text(row, "version")));
    rows.sort_by_key(|row| (text(row, "group"), text(row, "version"), text(row, "resource")));
    ensure!(!rows.is_empty(), "resources.json lists no GA resource");
    let mut table = HEADER.to_owned();
    for row in rows {
        writeln!(table, "{}", line(row, &selectable, &types)?.join("\t"))?;
    }
    std::fs::write(OUTPUT, table).with_context(|| format!("write {OUTPUT}"))
}

fn line(
    row: &Value,
    selectable: &Value,
    types: &BTreeMap<(String, String, String), String>,
) -> anyhow::Result<Vec<String>> {
    let (group, version, kind) = (text(row, "group"), text(row, "version"), text(row, "kind"));
    let resource = text(row, "resource");
    let api_version = api_version(group, version);
    let type_name = types
        .get(&(group.to_owned(), version.to_owned(), kind.to_owned()))
        .with_context(|| format!("no type for {api_version} {kind}"))?;
    let fields = &selectable[format!("{api_version}/{kind}")];
    let subresources = row["subresources"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(vec![
        api_version,
        kind.to_owned(),
        resource.to_owned(),
        text(row, "singular").to_owned(),
        text(row, "scope").to_lowercase(),
        joined(&row["verbs"]),
        joined(&row["shortNames"]),
        joined(&row["categories"]),
        or_dash(subresources.iter().map(|s| subresource(s, kind)).collect::<Vec<_>>().join(";")),
        type_name.clone(),
        storage(group, resource),
        joined(fields),
        traits(group, resource),
    ])
}

fn subresource(sub: &Value, row_kind: &str) -> String {
    let (group, version, kind) =
        (text(sub, "kindGroup"), text(sub, "kindVersion"), text(sub, "kind"));
    let kind = match (version, kind == row_kind) {
        ("", true) => String::new(),
        ("", false) => format!("={kind}"),
        _ => format!("={}/{kind}", api_version(group, version)),
    };
    format!("{}{kind}:{}", text(sub, "name"), joined(&sub["verbs"]))
}

/// Key segment, and the stored version where it is another than the served one.
fn storage(group: &str, resource: &str) -> String {
    let name = format!("{group}/{resource}");
    if UNSTORED.contains(&name.as_str()) || UNSTORED_GROUPS.contains(&group) {
        return "-".to_owned();
    }
    match name.as_str() {
        "/events" | "events.k8s.io/events" => "events@v1".to_owned(),
        "autoscaling/horizontalpodautoscalers" => {
            "autoscaling.horizontalpodautoscalers@autoscaling/v2".to_owned()
        }
        _ if group.is_empty() => resource.to_owned(),
        _ => format!("{group}.{resource}"),
    }
}

fn traits(group: &str, resource: &str) -> String {
    let name = format!("{group}/{resource}");
    let mut traits = Vec::new();
    let sets = [
        ("generation", GENERATION),
        ("returned", RETURNED),
        ("conditional", CONDITIONAL),
        ("upsert", UPSERT),
        ("unborn", UNBORN),
        ("keeps:labels", KEEPS_LABELS),
        ("keeps:metadata", KEEPS_METADATA),
    ];
    for (trait_name, set) in sets {
        if set.contains(&name.as_str()) {
            traits.push(trait_name);
        }
    }
    match name.as_str() {
        "/events" | "events.k8s.io/events" => traits.extend(["relaxed", "ttl:3600"]),
        "coordination.k8s.io/leases" => traits.push("relaxed:kube-node-lease"),
        "/pods" => traits.push("node:spec.nodeName"),
        "/secrets" => traits.push("sealed"),
        "/componentstatuses" => traits.push("deprecated:v1 ComponentStatus is deprecated in v1.19+"),
        "/endpoints" => traits.push(
            "deprecated:v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        _ => {}
    }
    or_dash(traits.join(","))
}

fn type_names(facts: &Value) -> BTreeMap<(String, String, String), String> {
    let mut names = BTreeMap::new();
    for (name, facts) in facts.as_object().into_iter().flatten() {
        // Option types carry the GVK of every group; the kinds proper carry one.
        if let Some([gvk]) = facts["gvk"].as_array().map(Vec::as_slice) {
            let key = (text(gvk, "group"), text(gvk, "version"), text(gvk, "kind"));
            names.insert((key.0.to_owned(), key.1.to_owned(), key.2.to_owned()), name.clone());
        }
    }
    names
}

fn read(reference: &Path, file: &str) -> anyhow::Result<Value> {
    let path = reference.join(file);
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

fn is_ga(version: &str) -> bool {
    version.strip_prefix('v').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn joined(list: &Value) -> String {
    let items: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    or_dash(items.join(","))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
