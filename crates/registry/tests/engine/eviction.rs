//! Evictions of pods that become something else in the very moment.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use futures::future::BoxFuture;
use meta::Status;
use serde_json::Value;
use skiff_registry::{
    Action, Admit, Attributes, Operation, Params, Registry, Request, Row, UserInfo,
};

use crate::common::Bench;

/// Makes a pod ready while its first deletion is admitted.
#[derive(Default)]
struct Racer {
    engine: OnceLock<Arc<Registry>>,
    raced: AtomicBool,
}

impl Admit for Racer {
    fn name(&self) -> &'static str {
        "Racer"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        operation == Operation::Delete && row.kind.kind == "Pod"
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        _: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if self.raced.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
            let engine = self.engine.get().expect("set").clone();
            let body = r#"{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}"#;
            let request = Request {
                user: Arc::new(UserInfo::default()),
                row: engine.rows().get("", "v1", "pods").expect("row").clone(),
                namespace: attributes.namespace.map(str::to_owned),
                name: Some(attributes.name.to_owned()),
                subresource: Some("status".to_owned()),
                action: Action::Patch(skiff_registry::PatchType::Merge, body.into()),
                params: Params::default(),
            };
            engine.execute(request).await.map(drop)
        })
    }
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},
    "spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}"#;
const BUDGET: &str = r#"{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"b"},
    "spec":{"minAvailable":1,"selector":{}}}"#;
const EVICTION: &str = r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_gets_ready_meanwhile_is_counted_by_its_budget() {
    let racer = Arc::new(Racer::default());
    let bench = Bench::with(vec![racer.clone()]);
    assert!(racer.engine.set(bench.engine.clone()).is_ok());
    bench.json("create", "pods", "d", "", POD).await;
    bench.json("create", "poddisruptionbudgets", "d", "", BUDGET).await;
    let refused = bench.run("create", "pods/p/eviction", "d", "", EVICTION).await;
    let status = refused.expect_err("the budget allows nothing");
    assert_eq!(status.code, 429, "{status}");
    let pod = bench.json("get", "pods/p", "d", "", "").await;
    assert!(pod["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(pod["status"]["phase"], "Running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_waits_goes_without_its_budget() {
    let bench = Bench::new();
    bench.json("create", "pods", "d", "", POD).await;
    bench.json("create", "poddisruptionbudgets", "d", "", BUDGET).await;
    bench.json("create", "pods/p/eviction", "d", "", EVICTION).await;
    let pod = bench.json("get", "pods/p", "d", "", "").await;
    assert!(!pod["metadata"]["deletionTimestamp"].is_null());
    let told = &pod["status"]["conditions"][0];
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&"DisruptionTarget".into(), &"EvictionByEvictionAPI".into())
    );
    let asked = r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"},
        "deleteOptions":{"ignoreStoreReadErrorWithClusterBreakingPotential":true}}"#;
    let refused = bench.run("create", "pods/p/eviction", "d", "", asked).await;
    assert_eq!(refused.expect_err("refused").code, 422);
}
