//! A cluster for tests: API server and controllers in this process, and a node that only claims
//! to run pods: it binds them, says that they are ready, and lets them go.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use apiserver::{ApiServer, ApiServerOptions, Dependencies, authenticated};
use client::{Caches, Change, Subscription};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use pki::{Authority, Profile, TokenKeys};
use registry::{Rows, header_reader};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use skiff_controllers::{Controllers, ControllersOptions};
use store::Embedded;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long a node may be silent where it is about silence: three tenths of it, in which others
/// that fell silent with it are noticed, are many reports.
const GRACE: Duration = Duration::from_secs(10);
/// And where it is about something else.
const LONG_GRACE: Duration = Duration::from_secs(600);
/// The pause between two reports.
const BEAT: Duration = Duration::from_millis(500);

pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    pub(crate) caches: Caches,
    /// Images whose pods never become ready.
    broken: Arc<Mutex<Vec<String>>>,
    shutdown: CancellationToken,
    _stop: DropGuard,
    _directory: TempDir,
}

impl Cluster {
    /// A cluster whose nodes are never given up.
    pub(crate) async fn start() -> Self {
        Self::start_with(LONG_GRACE).await
    }

    /// A cluster that gives up silent nodes soon.
    pub(crate) async fn watchful() -> Self {
        Self::start_with(GRACE).await
    }

    async fn start_with(grace: Duration) -> Self {
        let filter = std::env::var("SKIFF_LOG").unwrap_or_else(|_| "warn".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let directory = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let server = start_server(&directory, &shutdown).await;
        let admin =
            client::in_process(server.in_process(authenticated("admin", ["system:masters"])), ());
        let manager = authenticated("system:kube-controller-manager", [] as [&str; 0]);
        let manager = client::in_process(server.in_process(manager), ());
        let options = ControllersOptions {
            root_ca: Some("the CA".into()),
            token_keys: Some(TokenKeys::load_or_create(&directory.path().join("sa.key")).unwrap()),
            node_grace: Some(grace),
            garbage_delay: Duration::ZERO,
            ..ControllersOptions::default()
        };
        let caches = Caches::new(manager.clone(), shutdown.clone());
        let controllers = Controllers::new(options, caches, manager);
        let until = shutdown.clone();
        tokio::spawn(async move { controllers.run(until).await.unwrap() });
        let cluster = Self {
            caches: Caches::new(admin.clone(), shutdown.clone()),
            client: admin,
            broken: Arc::default(),
            _stop: shutdown.clone().drop_guard(),
            shutdown,
            _directory: directory,
        };
        cluster
            .until("default account", || async {
                cluster.api::<k8s_openapi::api::core::v1::ServiceAccount>().get_opt("default").await
            })
            .await;
        cluster
    }

    /// Adds a node. It reports until the returned token is cancelled.
    pub(crate) async fn add_node(&self, name: &'static str) -> CancellationToken {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let node = object(json!({ "metadata": { "name": name } }));
        nodes.create(&PostParams::default(), &node).await.unwrap();
        self.resume_node(name)
    }

    /// A node that was there goes on. It reports until the returned token is cancelled.
    pub(crate) fn resume_node(&self, name: &'static str) -> CancellationToken {
        let stop = self.shutdown.child_token();
        let pods = self.caches.cache::<Pod>().subscribe();
        let fake = FakeNode { name, client: self.client.clone(), broken: self.broken.clone() };
        let until = stop.clone();
        tokio::spawn(async move { until.run_until_cancelled(fake.run(pods)).await });
        stop
    }

    pub(crate) fn set_broken(&self, image: &str) {
        self.broken.lock().unwrap().push(image.to_owned());
    }

    /// Pods of that image become ready again, and those that did not are made anew.
    pub(crate) async fn heal(&self, image: &str) {
        self.broken.lock().unwrap().retain(|broken| broken != image);
        let pods: Api<Pod> = self.api();
        let all = pods.list(&Default::default()).await.unwrap().items;
        for pod in all.iter().filter(|pod| pod.status.as_ref().is_none_or(|s| s.pod_ip.is_none())) {
            // One that became ready meanwhile stays.
            let seen = Preconditions { uid: pod.uid(), resource_version: pod.resource_version() };
            let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::default() };
            let _ = pods.delete(&pod.name_any(), &params).await;
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        self.api::<K>().create(&PostParams::default(), &object(value)).await.unwrap()
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let patch = Patch::Merge(&patch);
        self.api::<K>().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Asks again until there is an answer.
    pub(crate) async fn until<T, Fut>(&self, what: &str, ask: impl Fn() -> Fut) -> T
    where
        Fut: Future<Output = Result<Option<T>, kube::Error>>,
    {
        let since = Instant::now();
        loop {
            if let Some(answer) = ask().await.unwrap() {
                return answer;
            }
            assert!(since.elapsed() < PATIENCE, "waited too long: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the object of that name is as it should be.
    pub(crate) async fn wait<K>(&self, name: &str, what: &str, good: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let api = self.api::<K>();
        self.until(what, || async { Ok(api.get_opt(name).await?.filter(|object| good(object))) })
            .await
    }

    /// Waits until so many objects of a kind are left.
    pub(crate) async fn wait_count<K>(&self, count: usize)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let api = self.api::<K>();
        let what = format!("{count} {} left", K::plural(&()));
        self.until(&what, || async {
            let left = api.list(&Default::default()).await?.items.len();
            Ok((left == count).then_some(()))
        })
        .await;
    }
}

pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn start_server(directory: &TempDir, shutdown: &CancellationToken) -> ApiServer {
    let rows = Arc::new(Rows::builtin());
    let options = store::Options::new(directory.path().join("store"));
    let store = Embedded::open(options, header_reader(rows.clone())).unwrap();
    let authority = Authority::load_or_create(directory.path(), "ca").unwrap();
    let profile = Profile::client("kube-apiserver-kubelet-client", Some("system:masters"));
    let identity = authority.issue(&profile).unwrap();
    let kubelet_tls = serve::tls::client_config(
        &[authority.certificate_der().unwrap()],
        Some((identity.chain().unwrap(), identity.private_key().unwrap())),
    )
    .unwrap();
    let dependencies = Dependencies {
        store: Arc::new(store),
        rows,
        token_keys: TokenKeys::load_or_create(&directory.path().join("sa.key")).unwrap(),
        kubelet_tls,
    };
    let options = ApiServerOptions {
        advertise: "192.0.2.1:6443".parse().unwrap(),
        ..ApiServerOptions::default()
    };
    let server = ApiServer::new(options, dependencies, shutdown.clone()).await.unwrap();
    server.bootstrap().await.unwrap();
    tokio::spawn(server.clone().run());
    server
}

/// Plays scheduler and kubelet.
struct FakeNode {
    name: &'static str,
    client: kube::Client,
    broken: Arc<Mutex<Vec<String>>>,
}

impl FakeNode {
    async fn run(self, mut pods: Subscription<Pod>) {
        let mut beat = tokio::time::interval(BEAT);
        let mut addresses = 0;
        loop {
            tokio::select! {
                _ = beat.tick() => self.report().await,
                change = pods.next() => {
                    let Some(change) = change else { return };
                    self.see(change, &mut addresses).await;
                }
            }
        }
    }

    async fn report(&self) {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let now = meta::time::seconds(jiff::Timestamp::now());
        let heartbeat = jiff::Timestamp::now();
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True",
            "reason": "KubeletReady", "message": heartbeat.to_string(),
            "lastHeartbeatTime": now, "lastTransitionTime": now }] } });
        let _ = nodes.patch_status(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        self.renew().await;
    }

    async fn renew(&self) {
        use k8s_openapi::api::coordination::v1::Lease;
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let spec = json!({ "renewTime": meta::time::micros(jiff::Timestamp::now()) });
        let patch = json!({ "spec": spec });
        let patched = leases.patch(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        if patched.is_err() {
            let lease = object(json!({ "metadata": { "name": self.name }, "spec": spec }));
            let _ = leases.create(&PostParams::default(), &lease).await;
        }
    }

    async fn see(&self, change: Change<Pod>, addresses: &mut u32) {
        let Some(pod) = change.after else { return };
        let Some(spec) = &pod.spec else { return };
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let name = pod.name_any();
        match spec.node_name.as_deref() {
            Some(node) if node != self.name => {}
            // The newest node takes what is not assigned yet.
            None if pod.metadata.deletion_timestamp.is_none() => {
                let binding = json!({ "apiVersion": "v1", "kind": "Binding",
                    "metadata": { "name": name },
                    "target": { "kind": "Node", "name": self.name } });
                let bound: Result<Value, _> = api
                    .create_subresource("binding", &name, &PostParams::default(), &binding)
                    .await;
                drop(bound);
            }
            None => {}
            Some(_) if pod.metadata.deletion_timestamp.is_some() => {
                let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            }
            Some(_) => {
                let image = spec.containers[0].image.clone().unwrap_or_default();
                let is_ready =
                    pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                let is_ready =
                    is_ready.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
                if is_ready || self.broken.lock().unwrap().contains(&image) {
                    return;
                }
                *addresses += 1;
                let fresh = format!("10.244.{}.{}", *addresses / 250, *addresses % 250 + 1);
                let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
                let ip = ip.unwrap_or(fresh);
                let now = meta::time::seconds(jiff::Timestamp::now());
                let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": now });
                let status = json!({ "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                    "conditions": [ready] });
                let patch = json!({ "status": status });
                let _ =
                    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            }
        }
    }
}
