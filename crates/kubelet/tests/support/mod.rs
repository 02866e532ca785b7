//! A node for tests: an API server in the process, a containerd of its own, a kubelet over both. Pods get an address
//! from a network plugin that makes no network; those that need one use the host's.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver::{ApiServer, ApiServerOptions, Dependencies, authenticated};
use client::Caches;
use cri::{
    Runtime,
    archive::{self, Architecture, Image, ImageFile},
    containerd::{Containerd, ContainerdOptions, import, stop_all},
};
use k8s_openapi::api::core::v1 as api;
use kube::{Api, api::PostParams};
use pki::{Authority, Profile, TokenKeys};
use registry::{Rows, header_reader};
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serve::{
    Server, ServerOptions,
    tls::{Certificate, ServerTls},
};
use skiff_kubelet::{Kubelet, KubeletDependencies, KubeletOptions, ServerIdentity};
use store::Embedded;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const NODE: &str = "node-under-test";
pub(crate) const IMAGE: &str = "skiff.local/busybox:1";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Node {
    pub(crate) client: kube::Client,
    server: ApiServer,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) containerd: ContainerdOptions,
    pub(crate) options: KubeletOptions,
    pub(crate) authority: Authority,
    /// Cancelled by tests in which the machine goes down.
    pub(crate) going_down: CancellationToken,
    kubelet: Option<(JoinHandle<()>, CancellationToken)>,
    shutdown: CancellationToken,
    directory: TempDir,
    finished: bool,
}

impl Drop for Node {
    /// A test that failed half-way must not leave containers behind: the next one would meet them.
    fn drop(&mut self) {
        if let Some((_, stop)) = &self.kubelet {
            stop.cancel();
        }
        self.shutdown.cancel();
        if self.finished {
            return;
        }
        let (containerd, options) = (self.containerd.clone(), self.options.clone());
        let cleaner = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(stop_all(&containerd, Duration::ZERO));
            skiff_kubelet::remove_traces(&options.root_dir, &options.cgroup_root);
        });
        let _ = cleaner.join();
    }
}

impl Node {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, |_| {}).await
    }

    pub(crate) async fn start_with(name: &str, change: impl FnOnce(&mut KubeletOptions)) -> Self {
        let filter = std::env::var("SKIFF_LOG").unwrap_or_else(|_| "warn".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let directory = tempfile::Builder::new().prefix("skiff-kubelet").tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let (server, authority) = start_server(directory.path(), &shutdown).await;
        let client =
            client::in_process(server.in_process(authenticated("kubelet", ["system:masters"])), ());
        let containerd =
            ContainerdOptions::new(directory.path().join("c"), directory.path().join("r"));
        start_containerd(&containerd).await;
        let mut options = KubeletOptions::new(NODE, directory.path().join("k"));
        options.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        options.cgroup_root = format!("/skiff-test-{}-{name}", std::process::id());
        change(&mut options);
        let runtime: Arc<dyn Runtime> = Arc::new(cri::GrpcRuntime::new(&containerd.socket()));
        let mut node = Self {
            client,
            server,
            runtime,
            containerd,
            options,
            authority,
            going_down: CancellationToken::new(),
            kubelet: None,
            shutdown,
            directory,
            finished: false,
        };
        let account: api::ServiceAccount = object(json!({"metadata": {"name": "default"}}));
        node.api::<api::ServiceAccount>().create(&PostParams::default(), &account).await.unwrap();
        node.start_kubelet();
        node
    }

    /// A kubelet with nothing but what the disk, the runtime and the API have.
    pub(crate) fn start_kubelet(&mut self) {
        let stop = CancellationToken::new();
        let identity = self
            .authority
            .issue(&Profile::server("kubelet", vec![NODE.into()], vec![[127, 0, 0, 1].into()]))
            .unwrap();
        let identity = ServerIdentity {
            certificate: Certificate::new(
                identity.chain().unwrap(),
                identity.private_key().unwrap(),
            )
            .unwrap(),
            client_authorities: vec![self.authority.certificate_der().unwrap()]
                as Vec<CertificateDer<'static>>,
        };
        let dependencies = KubeletDependencies {
            caches: Caches::new(self.client.clone(), stop.clone()),
            network: Caches::new(self.client.clone(), stop.clone()),
            runtime: self.runtime.clone(),
            identity,
            tunnel: None,
            going_down: self.going_down.clone(),
            others: Arc::new(String::new),
        };
        let kubelet = Kubelet::new(self.options.clone(), dependencies);
        let token = stop.clone();
        let task = tokio::spawn(async move { kubelet.run(token).await.unwrap() });
        self.kubelet = Some((task, stop));
    }

    /// Waits until the kubelet has ended by itself.
    pub(crate) async fn ended(&mut self) {
        let (task, _) = self.kubelet.take().unwrap();
        tokio::time::timeout(PATIENCE, task).await.expect("the kubelet ends").unwrap();
    }

    pub(crate) async fn stop_kubelet(&mut self) {
        if let Some((task, stop)) = self.kubelet.take() {
            stop.cancel();
            task.await.unwrap();
        }
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn finish(mut self) {
        self.stop_kubelet().await;
        stop_all(&self.containerd, Duration::ZERO).await;
        skiff_kubelet::remove_traces(&self.options.root_dir, &self.options.cgroup_root);
        self.shutdown.cancel();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.directory.path().to_string_lossy().into_owned();
        self.finished = true;
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let groups = hierarchy.path().join(self.options.cgroup_root.trim_matches('/'));
            assert!(!groups.exists(), "{} is left", groups.display());
        }
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&place)).collect();
        assert!(left.is_empty(), "mounts are left: {left:#?}");
    }

    /// A client as any other has it: over TLS, with a certificate of the cluster's authority.
    pub(crate) async fn over_tls(&self) -> kube::Client {
        let localhost = [127, 0, 0, 1].into();
        let identity = self.authority.issue(&Profile::server("server", vec![], vec![localhost]));
        let identity = identity.unwrap();
        let certificate =
            Certificate::new(identity.chain().unwrap(), identity.private_key().unwrap()).unwrap();
        let authority = [self.authority.certificate_der().unwrap()];
        let tls = ServerTls::new(certificate, Some(&authority)).unwrap();
        let server = Server::bind((localhost, 0).into(), Some(tls), ServerOptions::default()).await;
        let server = server.unwrap();
        let address = server.local_address().unwrap();
        tokio::spawn(server.run(self.server.clone(), self.shutdown.clone()));
        let admin = Profile::client("admin", Some("system:masters"));
        let admin = self.authority.issue(&admin).unwrap();
        let config = pki::kubeconfig(
            "test",
            &format!("https://{address}"),
            self.authority.certificate(),
            &admin,
        );
        let config = kube::config::Kubeconfig::from_yaml(&config).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await;
        kube::Client::try_from(config.unwrap()).unwrap()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) fn pods(&self) -> Api<api::Pod> {
        self.api()
    }

    /// Creates a pod bound to the node; busybox unless the container says otherwise.
    pub(crate) async fn run(&self, name: &str, spec: Value) -> api::Pod {
        self.run_object(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    pub(crate) async fn run_object(&self, mut pod: Value) -> api::Pod {
        pod["spec"]["nodeName"] = json!(NODE);
        if pod["spec"]["automountServiceAccountToken"].is_null() {
            pod["spec"]["automountServiceAccountToken"] = json!(false);
        }
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                if container["image"].is_null() {
                    container["image"] = json!(IMAGE);
                }
            }
        }
        self.pods().create(&PostParams::default(), &object(pod)).await.unwrap()
    }

    pub(crate) async fn get(&self, name: &str) -> Option<api::Pod> {
        self.pods().get_opt(name).await.unwrap()
    }

    /// Waits until a pod satisfies a condition and returns it.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&api::Pod) -> bool,
    ) -> api::Pod {
        let mut pod = None;
        let good = async || {
            pod = self.get(name).await;
            pod.as_ref().is_some_and(&condition)
        };
        if !comes_true(good).await {
            let status =
                pod.and_then(|p| p.status).map(|s| serde_json::to_string_pretty(&s).unwrap());
            let events = self.events(name).await.join("\n");
            panic!(
                "{name} never {what}; status: {}\nevents:\n{events}",
                status.unwrap_or_default()
            );
        }
        pod.unwrap()
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        until(&format!("{name} is deleted"), async || self.get(name).await.is_none()).await;
    }

    /// Events about a pod as `reason: message`.
    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<api::Event> = self.api();
        let listed = events.list(&Default::default()).await.unwrap();
        let about =
            listed.items.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(name));
        about
            .map(|e| format!("{}: {}", e.reason.unwrap_or_default(), e.message.unwrap_or_default()))
            .collect()
    }

    pub(crate) async fn wait_event(&self, name: &str, text: &str) {
        let mut events = Vec::new();
        let told = async || {
            events = self.events(name).await;
            events.iter().any(|e| e.contains(text))
        };
        assert!(comes_true(told).await, "no event {text:?} about {name}: {events:#?}");
    }

    /// Runs a command in a pod's container and returns what it prints.
    pub(crate) async fn exec(&self, pod: &api::Pod, container: &str, command: &[&str]) -> String {
        let id = container_id(pod, container);
        let command = command.iter().map(|w| (*w).to_owned()).collect();
        let answer = self.runtime.exec_sync(id, command, PATIENCE).await.unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&answer.stdout),
            String::from_utf8_lossy(&answer.stderr)
        )
    }
}

/// Waits for a condition; whether it holds in the end.
async fn comes_true(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let since = Instant::now();
    loop {
        if condition().await {
            return true;
        }
        if since.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(comes_true(condition).await, "waited too long: {what}");
}

pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn status<'a>(pod: &'a api::Pod, container: &str) -> Option<&'a api::ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.into_iter().find(|s| s.name == container)
}

pub(crate) fn container_id(pod: &api::Pod, container: &str) -> String {
    let id = status(pod, container).and_then(|s| s.container_id.clone()).unwrap_or_default();
    id.trim_start_matches("containerd://").to_owned()
}

pub(crate) fn waiting_reason(pod: &api::Pod, container: &str) -> Option<String> {
    status(pod, container)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

pub(crate) fn is_ready(pod: &api::Pod) -> bool {
    condition(pod, "Ready") == Some("True")
}

pub(crate) fn condition<'a>(pod: &'a api::Pod, kind: &str) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str())
}

pub(crate) fn phase(pod: &api::Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

async fn start_server(directory: &Path, shutdown: &CancellationToken) -> (ApiServer, Authority) {
    let rows = Arc::new(Rows::builtin());
    let store =
        Embedded::open(store::Options::new(directory.join("s")), header_reader(rows.clone()))
            .unwrap();
    let authority = Authority::load_or_create(directory, "ca").unwrap();
    let identity = authority
        .issue(&Profile::client("kube-apiserver-kubelet-client", Some("system:masters")))
        .unwrap();
    let kubelet_tls = serve::tls::client_config(
        &[authority.certificate_der().unwrap()],
        Some((identity.chain().unwrap(), identity.private_key().unwrap())),
    )
    .unwrap();
    let dependencies = Dependencies {
        store: Arc::new(store),
        rows,
        token_keys: TokenKeys::load_or_create(&directory.join("sa.key")).unwrap(),
        kubelet_tls,
    };
    let options = ApiServerOptions {
        advertise: "192.0.2.1:6443".parse().unwrap(),
        ..ApiServerOptions::default()
    };
    let server = ApiServer::new(options, dependencies, shutdown.clone()).await.unwrap();
    server.bootstrap().await.unwrap();
    tokio::spawn(server.clone().run());
    (server, authority)
}

/// A network plugin that gives every pod the same address and makes nothing.
const PLUGIN: &str = r#"#!/bin/sh
case "$CNI_COMMAND" in
ADD) cat >/dev/null; echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","interface":0,"address":"192.0.2.77/24"}]}';;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}';;
*) cat >/dev/null;;
esac
"#;

async fn start_containerd(options: &ContainerdOptions) {
    fs::create_dir_all(&options.cni_bin_dir).unwrap();
    fs::create_dir_all(&options.cni_conf_dir).unwrap();
    for plugin in ["loopback", "nothing"] {
        let file = options.cni_bin_dir.join(plugin);
        fs::write(&file, PLUGIN).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let conf = json!({"cniVersion": "0.4.0", "name": "nothing", "plugins": [{"type": "nothing"}]});
    fs::write(options.cni_conf_dir.join("10-nothing.conflist"), conf.to_string()).unwrap();
    let containerd = Containerd::start(options.clone()).await.unwrap();
    let architecture = Architecture::host().unwrap();
    let busybox = Image {
        name: IMAGE.to_owned(),
        architecture,
        files: vec![
            ImageFile::executable("bin/busybox", fs::read("/bin/busybox").unwrap()),
            ImageFile::executable("bin/sh", b"#!/bin/busybox sh\n".to_vec()),
            ImageFile::directory("tmp", 0o1777),
        ],
        entrypoint: vec!["/bin/busybox".to_owned()],
        command: vec!["sleep".to_owned(), "1000000".to_owned()],
        environment: vec!["PATH=/bin".to_owned()],
        user: String::new(),
        ports: Vec::new(),
    };
    let path = options.run_dir.join("images.tar");
    archive::write(
        fs::File::create(&path).unwrap(),
        &[archive::pause_image(architecture), busybox],
    )
    .unwrap();
    import(&options.socket(), containerd.snapshotter(), &path).await.unwrap();
}
