//! When admission plugins are asked, in which order, and what they are told.

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::Status;
use parking_lot::Mutex;
use serde_json::Value;
use skiff_registry::{Admit, Attributes, Operation, Row};

use crate::common::{Bench, json_of};

/// Notes what it is asked; adds a label; refuses what is called `bad`.
struct Plugin {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
}

impl Plugin {
    fn note(&self, stage: &str, attributes: &Attributes<'_>) {
        let (operation, old) = (attributes.operation.as_str(), attributes.old.is_some());
        let subresource = attributes.subresource.unwrap_or("-");
        let name = if attributes.name.is_empty() { "-" } else { attributes.name };
        self.log
            .lock()
            .push(format!("{} {stage} {operation} {name} {subresource} old={old}", self.name));
    }
}

impl Admit for Plugin {
    fn name(&self) -> &'static str {
        self.name
    }

    fn handles(&self, _: Operation, row: &Row, _: Option<&str>) -> bool {
        row.kind.kind == "ReplicaSet"
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            self.note("mutate", attributes);
            attributes.warn("mind the gap");
            object["metadata"]["labels"][self.name] = "seen".into();
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            self.note("validate", attributes);
            match object {
                Some(object) if object["metadata"]["labels"]["bad"] == "yes" => {
                    Err(Status::forbidden(&attributes.row.group_resource(), attributes.name, "no"))
                }
                _ => Ok(()),
            }
        })
    }
}

const SET: &str = r#"{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"r"},"spec":{
    "selector":{"matchLabels":{"a":"b"}},
    "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_are_asked_in_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let plugin = |name| Arc::new(Plugin { name, log: log.clone() }) as Arc<dyn Admit>;
    let bench = Bench::with(vec![plugin("one"), plugin("two")]);
    let take = || std::mem::take(&mut *log.lock());

    let created = bench.run("create", "replicasets", "d", "", SET).await.expect("created");
    let (_, object, warnings) = json_of(created);
    assert_eq!(object["metadata"]["labels"]["two"], "seen");
    assert_eq!(warnings, ["mind the gap"]);
    assert_eq!(
        take(),
        [
            "one mutate CREATE r - old=false",
            "two mutate CREATE r - old=false",
            "one validate CREATE r - old=false",
            "two validate CREATE r - old=false",
        ]
    );

    let patch = r#"{"metadata":{"labels":{"bad":"yes"}}}"#;
    let refused = bench.run("patch:merge", "replicasets/r", "d", "", patch).await;
    assert_eq!(refused.expect_err("refused").message, r#"replicasets.apps "r" is forbidden: no"#);
    assert_eq!(take()[2..], ["one validate UPDATE r - old=true"]);

    bench
        .run("patch:merge", "replicasets/r/status", "d", "", r#"{"status":{}}"#)
        .await
        .expect("ok");
    assert_eq!(take()[0], "one mutate UPDATE r status old=true");

    bench.run("delete", "replicasets/r", "d", "", "").await.expect("deleted");
    assert_eq!(take(), ["one validate DELETE r - old=true", "two validate DELETE r - old=true"]);

    // A dry run asks all the same, and stores nothing.
    bench.run("create", "replicasets", "d", "dryRun=All", SET).await.expect("created");
    assert_eq!(take().len(), 4);
    bench.run("get", "replicasets/r", "d", "", "").await.expect_err("not stored");
}
