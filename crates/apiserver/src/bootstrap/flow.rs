//! The default objects of flow control, as a table, and how they are kept: the mandatory ones as they are here, the
//! suggested ones unless an administrator has changed them.

use meta::Status;
use serde_json::{Value, json};

use super::{Place, Writer};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Says whether the server keeps a suggested object's specification.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Names of the mandatory objects, schemas and levels alike.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// Name, shares, percentage that is lent, and queues with their hand; none for a level that refuses.
type LevelRow = (&'static str, i32, i32, Option<(i32, i32)>);
const LEVELS: [LevelRow; 7] = [
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
    ("catch-all", 5, 0, None),
];
/// Requests that may wait in a queue.
const QUEUE_LENGTH: i32 = 50;

/// Name, level, precedence, what tells flows apart, subjects and rules. A subject is `g:` group, `u:` user or `s:`
/// `namespace/name`; a rule `verbs|groups|resources`, `+` before it for the cluster's scope too, or `verbs|/paths`.
type SchemaRow = (&'static str, &'static str, i32, &'static str, &'static str, &'static str);
const ALL: &str = "+*|*|* *|*";
const EVERYBODY: &str = "g:system:unauthenticated g:system:authenticated";
const SCHEMAS: [SchemaRow; 12] = [
    ("exempt", "exempt", 1, "", "g:system:masters", ALL),
    ("probes", "exempt", 2, "", EVERYBODY, "get|/healthz,/readyz,/livez"),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        "u:system:kube-controller-manager u:system:kube-scheduler s:kube-system/*",
        "get,create,update|coordination.k8s.io|leases",
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        "g:system:nodes",
        "+*||nodes,nodes/status *|coordination.k8s.io|leases",
    ),
    ("system-nodes", "system", 500, "ByUser", "g:system:nodes", ALL),
    // Not upstream's: what carries the pods' traffic must not starve either.
    ("skiff-network", "system", 500, "ByUser", "g:skiff:network", ALL),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        "u:system:kube-controller-manager",
        ALL,
    ),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", "u:system:kube-scheduler", ALL),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", "s:kube-system/*", ALL),
    ("service-accounts", "workload-low", 9000, "ByUser", "g:system:serviceaccounts", ALL),
    ("global-default", "global-default", 9900, "ByUser", EVERYBODY, ALL),
    ("catch-all", "catch-all", 10000, "ByUser", EVERYBODY, ALL),
];

/// All default objects, levels first.
pub(crate) fn all() -> Vec<Value> {
    let exempt =
        json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let levels = LEVELS.into_iter().map(|row| (row.0, level(row)));
    let levels = std::iter::once(("exempt", exempt)).chain(levels);
    let levels = levels.map(|(name, spec)| object("PriorityLevelConfiguration", name, spec));
    levels.chain(SCHEMAS.into_iter().map(schema)).collect()
}

/// Those without which nothing works.
pub(crate) fn mandatory() -> Vec<Value> {
    all().into_iter().filter(is_mandatory).collect()
}

fn is_mandatory(object: &Value) -> bool {
    MANDATORY.iter().any(|name| object["metadata"]["name"] == *name)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec
    })
}

fn level((_, shares, lent, queues): LevelRow) -> Value {
    let response = match queues {
        None => json!({"type": "Reject"}),
        Some((queues, hand)) => json!({"type": "Queue", "queuing": {
            "queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH
        }}),
    };
    json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lent, "limitResponse": response
    }})
}

fn schema((name, level, precedence, method, subjects, rules): SchemaRow) -> Value {
    let subjects: Vec<Value> = subjects.split(' ').map(subject).collect();
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules.split(' ') {
        let (cluster, rule) = rule.strip_prefix('+').map_or((false, rule), |rule| (true, rule));
        let mut lists = rule.split('|').map(|list| list.split(',').collect::<Vec<&str>>());
        let mut next = || lists.next().unwrap_or_default();
        let (verbs, groups, names) = (next(), next(), next());
        if names.is_empty() {
            paths.push(json!({"verbs": verbs, "nonResourceURLs": groups}));
        } else {
            let mut rule = json!({
                "verbs": verbs, "apiGroups": groups, "resources": names, "namespaces": ["*"]
            });
            if cluster {
                rule["clusterScope"] = true.into();
            }
            resources.push(rule);
        }
    }
    let mut rules = json!({"subjects": subjects});
    if !resources.is_empty() {
        rules["resourceRules"] = resources.into();
    }
    if !paths.is_empty() {
        rules["nonResourceRules"] = paths.into();
    }
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rules]
    });
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    object("FlowSchema", name, spec)
}

fn subject(text: &str) -> Value {
    match text.split_at_checked(2) {
        Some(("g:", name)) => json!({"kind": "Group", "group": {"name": name}}),
        Some(("u:", name)) => json!({"kind": "User", "user": {"name": name}}),
        Some((_, account)) => {
            let (namespace, name) = account.split_once('/').unwrap_or_default();
            json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": namespace}})
        }
        None => Value::Null,
    }
}

fn place(object: &Value) -> Place<'_> {
    let is_level = object["kind"] == "PriorityLevelConfiguration";
    Place {
        group: GROUP,
        version: "v1",
        resource: if is_level { "prioritylevelconfigurations" } else { "flowschemas" },
        namespace: "",
        name: object["metadata"]["name"].as_str().unwrap_or_default(),
    }
}

/// Writes what is missing or not as it should be, and removes defaults of other versions.
pub(crate) async fn ensure(writer: &Writer) -> Result<(), (String, Status)> {
    let all = all();
    let ensured = all.iter().map(|wanted| async move {
        let place = place(wanted);
        let ensured = writer.ensure(place, wanted, |stored| revised(stored, wanted)).await;
        ensured.map_err(|status| (place.name.to_owned(), status))
    });
    futures::future::try_join_all(ensured).await?;
    for resource in ["flowschemas", "prioritylevelconfigurations"] {
        for stored in writer.list(GROUP, resource) {
            let place = Place { resource, ..place(&stored) };
            let known = all.iter().map(self::place);
            let known =
                || known.clone().any(|one| (one.resource, one.name) == (resource, place.name));
            if stored["metadata"]["annotations"][AUTOUPDATE] == "true" && !known() {
                let gone = writer.delete(place).await;
                gone.map_err(|status| (place.name.to_owned(), status))?;
            }
        }
    }
    Ok(())
}

/// The stored object as it should be, or none if it is.
fn revised(stored: &Value, wanted: &Value) -> Option<Value> {
    let annotation = stored["metadata"]["annotations"][AUTOUPDATE].as_str();
    // Without a word on it, what was never changed is ours.
    let untouched = stored["metadata"]["generation"] == 1;
    let said = annotation.and_then(|text| text.parse::<bool>().ok());
    let ours = is_mandatory(wanted) || said.unwrap_or(untouched);
    let mut revised = stored.clone();
    if ours {
        revised["spec"] = wanted["spec"].clone();
    }
    if said != Some(ours) {
        revised["metadata"]["annotations"][AUTOUPDATE] = ours.to_string().into();
    }
    (revised != *stored).then_some(revised)
}

/// Says of each schema whether its level exists.
pub(crate) async fn tell_dangling(writer: &Writer) -> Result<(), Status> {
    let levels = writer.list(GROUP, "prioritylevelconfigurations");
    let news = writer.list(GROUP, "flowschemas").into_iter().filter_map(|schema| {
        let level = crate::flow::leads(&schema)?;
        let exists = levels.iter().any(|one| one["metadata"]["name"] == level);
        told(&schema, level, exists, jiff::Timestamp::now())
    });
    let told = news.map(|told| async move {
        let written = writer.status(place(&told), &told).await;
        // Somebody else wrote it; that is another change to look at.
        written
            .or_else(|status| if matches!(status.code, 404 | 409) { Ok(()) } else { Err(status) })
    });
    futures::future::try_join_all(told).await.map(drop)
}

/// The schema with the condition as it should be, or none if it is.
fn told(schema: &Value, level: &str, exists: bool, now: jiff::Timestamp) -> Option<Value> {
    let about = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} "
    );
    let (status, reason, message) = if exists {
        ("False", "Found", format!("{about}and it exists"))
    } else {
        ("True", "NotFound", format!("{about}but there is no such object"))
    };
    let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (known, mut others): (Vec<Value>, Vec<Value>) =
        conditions.into_iter().partition(|condition| condition["type"] == "Dangling");
    let same = |known: &Value| {
        known["status"] == status && known["reason"] == reason && known["message"] == message
    };
    if known.first().is_some_and(same) {
        return None;
    }
    others.push(json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::time::seconds(now)
    }));
    let mut told = schema.clone();
    told["status"]["conditions"] = others.into();
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Value {
        let found = all().into_iter().find(|one| one["metadata"]["name"] == name);
        found.expect("there")
    }

    #[test]
    fn tables_give_whole_objects() {
        let probes = find("probes");
        assert_eq!(
            probes["spec"]["rules"][0]["nonResourceRules"],
            json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}])
        );
        let node = find("system-node-high");
        assert_eq!(node["spec"]["rules"][0]["resourceRules"][0]["apiGroups"], json!([""]));
        assert_eq!(node["spec"]["rules"][0]["resourceRules"][1]["clusterScope"], Value::Null);
        assert_eq!(mandatory().len(), 4);
        let level = find("workload-low");
        assert_eq!(level["spec"]["limited"]["limitResponse"]["queuing"]["queueLengthLimit"], 50);
    }

    #[test]
    fn an_administrators_changes_stay_except_in_mandatory_objects() {
        let changed = |name: &str, autoupdate: Value| {
            let mut object = find(name);
            object["spec"]["matchingPrecedence"] = 77.into();
            object["metadata"]["annotations"][AUTOUPDATE] = autoupdate;
            object["metadata"]["generation"] = 2.into();
            object
        };
        let wanted = find("service-accounts");
        assert_eq!(revised(&changed("service-accounts", "false".into()), &wanted), None);
        let kept = revised(&changed("service-accounts", "true".into()), &wanted).expect("kept");
        assert_eq!(kept["spec"], wanted["spec"]);
        let silent = revised(&changed("service-accounts", Value::Null), &wanted).expect("marked");
        assert_eq!(silent["metadata"]["annotations"][AUTOUPDATE], "false");
        assert_eq!(silent["spec"]["matchingPrecedence"], 77);
        let wanted = find("exempt");
        assert!(revised(&changed("exempt", "false".into()), &wanted).is_some());
        assert_eq!(revised(&wanted, &wanted), None);
    }

    #[test]
    fn dangling_is_told_once() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let schema = find("probes");
        let found = told(&schema, "exempt", true, now).expect("news");
        assert_eq!(found["status"]["conditions"][0]["reason"], "Found");
        assert_eq!(told(&found, "exempt", true, now), None);
        let lost = told(&found, "exempt", false, now).expect("news");
        assert_eq!(lost["status"]["conditions"].as_array().map(Vec::len), Some(1));
    }
}
