//! What strategies say of every kind: who may be created by an update, who needs a resource version, what counts
//! generations, and what a write of the object and of its status leave to the other.

use meta::Status;
use serde_json::{Value, json};
use skiff_registry::Row;

use crate::common::{Bench, json_of};
use crate::minimal::{content, name};

/// Kinds that an update creates, as upstream has it.
const UPSERT: &str = "endpoints events events.events.k8s.io leases.coordination.k8s.io limitranges \
    runtimeclasses.node.k8s.io clusterrolebindings.rbac.authorization.k8s.io \
    clusterroles.rbac.authorization.k8s.io rolebindings.rbac.authorization.k8s.io \
    roles.rbac.authorization.k8s.io services";

/// Kinds whose updates need a resource version.
const CONDITIONAL: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io \
    mutatingadmissionpolicybindings.admissionregistration.k8s.io \
    mutatingwebhookconfigurations.admissionregistration.k8s.io \
    validatingadmissionpolicies.admissionregistration.k8s.io \
    validatingadmissionpolicybindings.admissionregistration.k8s.io \
    validatingwebhookconfigurations.admissionregistration.k8s.io \
    customresourcedefinitions.apiextensions.k8s.io apiservices.apiregistration.k8s.io \
    leases.coordination.k8s.io runtimeclasses.node.k8s.io poddisruptionbudgets.policy \
    csidrivers.storage.k8s.io csinodes.storage.k8s.io csistoragecapacities.storage.k8s.io \
    volumeattachments.storage.k8s.io";

/// Kinds that are born with a generation.
const GENERATION: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io \
    mutatingadmissionpolicybindings.admissionregistration.k8s.io \
    mutatingwebhookconfigurations.admissionregistration.k8s.io \
    validatingadmissionpolicies.admissionregistration.k8s.io \
    validatingadmissionpolicybindings.admissionregistration.k8s.io \
    validatingwebhookconfigurations.admissionregistration.k8s.io \
    customresourcedefinitions.apiextensions.k8s.io daemonsets.apps deployments.apps \
    replicasets.apps statefulsets.apps cronjobs.batch jobs.batch pods podtemplates \
    replicationcontrollers endpointslices.discovery.k8s.io \
    flowschemas.flowcontrol.apiserver.k8s.io \
    prioritylevelconfigurations.flowcontrol.apiserver.k8s.io ingresses.networking.k8s.io \
    ingressclasses.networking.k8s.io networkpolicies.networking.k8s.io \
    poddisruptionbudgets.policy deviceclasses.resource.k8s.io resourceslices.resource.k8s.io \
    priorityclasses.scheduling.k8s.io";

/// Kinds of which a write of the status leaves labels alone; all of these but Deployments, annotations too.
const KEEPS: &str = "validatingadmissionpolicies.admissionregistration.k8s.io \
    customresourcedefinitions.apiextensions.k8s.io apiservices.apiregistration.k8s.io \
    flowschemas.flowcontrol.apiserver.k8s.io \
    prioritylevelconfigurations.flowcontrol.apiserver.k8s.io servicecidrs.networking.k8s.io \
    resourceclaims.resource.k8s.io volumeattachments.storage.k8s.io deployments.apps";

fn listed(list: &str, row: &Row) -> bool {
    let (plural, group) = (&row.resource.resource, &row.resource.group);
    let wanted = if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") };
    list.split_whitespace().any(|name| name == wanted)
}

struct Subject<'a> {
    bench: &'a Bench,
    row: &'a Row,
    namespace: &'a str,
    path: String,
}

impl Subject<'_> {
    fn named(&self) -> String {
        format!("{}/{}", self.path, name(&self.row.kind.kind))
    }

    async fn put(&self, path: &str, body: &Value) -> Result<(u16, Value), Status> {
        let body = body.to_string();
        let outcome = self.bench.run("update", path, self.namespace, "", &body).await;
        outcome.map(json_of).map(|(code, json, _)| (code, json))
    }

    async fn check(&self) {
        let (row, place) = (self.row, self.path.as_str());
        let mut object = content(&row.kind.group, &row.kind.kind);
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.kind.as_str().into();
        object["metadata"] = json!({"name": name(&row.kind.kind)});
        let put = self.put(&self.named(), &object).await.map(|(code, _)| code);
        let expected = if listed(UPSERT, row) { Ok(201) } else { Err(404) };
        assert_eq!(put.map_err(|status| status.code), expected, "{place}: an update of nothing");
        if expected.is_err() {
            let body = object.to_string();
            self.bench.json("create", &self.path, self.namespace, "", &body).await;
        }
        let there = self.bench.json("get", &self.named(), self.namespace, "", "").await;
        let born = listed(GENERATION, row).then_some(1);
        assert_eq!(there["metadata"]["generation"].as_i64(), born, "{place}: first generation");

        let mut unversioned = there.clone();
        unversioned["metadata"]["resourceVersion"] = json!("");
        let put = self.put(&self.named(), &unversioned).await.map(|(code, _)| code);
        let expected = if listed(CONDITIONAL, row) { Err(422) } else { Ok(200) };
        assert_eq!(put.map_err(|status| status.code), expected, "{place}: without a version");

        if row.has_status() {
            let there = self.bench.json("get", &self.named(), self.namespace, "", "").await;
            self.check_status(&there).await;
        }
    }

    /// A write of the object leaves the status alone, and the reverse.
    async fn check_status(&self, there: &Value) {
        let place = self.path.as_str();
        let mut changed = there.clone();
        changed["status"]["conditions"] = json!([]);
        changed["metadata"]["labels"] = json!({"main": "a"});
        let (_, after) = self.put(&self.named(), &changed).await.expect(place);
        if self.row.kind.kind != "Node" {
            assert_eq!(
                after["status"], there["status"],
                "{place}: a status written with the object"
            );
        }
        let mut changed = after.clone();
        changed["metadata"]["labels"] = json!({"status": "b"});
        changed["metadata"]["annotations"] = json!({"status": "b"});
        let path = format!("{}/status", self.named());
        let (_, now) = self.put(&path, &changed).await.expect(place);
        assert_eq!(now.get("spec"), after.get("spec"), "{place}: a specification");
        assert_eq!(now["metadata"]["generation"], after["metadata"]["generation"], "{place}");
        let said = |field: &str| now["metadata"][field]["status"] == "b";
        let keeps = listed(KEEPS, self.row);
        assert_eq!(said("labels"), !keeps, "{place}: labels written with the status");
        let keeps = keeps && self.row.resource.resource != "deployments";
        assert_eq!(said("annotations"), !keeps, "{place}: annotations written with the status");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_written_as_upstream_has_it() {
    let bench = Bench::new();
    let rows: Vec<_> =
        bench.engine.rows().iter().filter(|row| row.storage.is_some()).cloned().collect();
    for row in rows {
        let resource = &row.resource;
        let path = format!("{}.{}@{}", resource.resource, resource.group, resource.version);
        let namespace = if row.namespaced() { "default" } else { "" };
        let subject = Subject { bench: &bench, row: &row, namespace, path };
        subject.check().await;
        bench.json("delete", &subject.named(), namespace, "", "").await;
    }
}
