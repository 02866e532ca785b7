//! The node: container runtime, pod network, kubelet, service proxy, DNS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use cri::archive::{Architecture, PAUSE_IMAGE, pause_image};
use cri::containerd::{Containerd, ContainerdOptions, Snapshotter};
use cri::{GrpcRuntime, Runtime};
use dns::{Dns, DnsOptions};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kubelet::{Kubelet, KubeletDependencies, KubeletOptions, ServerIdentity};
use network::cni::InstallOptions;
use network::{NetworkOptions, Proxy};
use pki::Profile;
use serde_json::json;
use serve::tls::Certificate;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control_plane::ControlPlane;
use super::{ContainerRuntime, Part, Plan, identity};

/// Which address of the Services' range is the DNS's.
const DNS_ADDRESS: usize = 10;

/// Makes the machine ready for pods: network, CNI plugin, a container runtime that answers and has
/// the pause image.
pub(super) async fn prepare(
    options: ContainerdOptions,
    foreign: Option<PathBuf>,
    network: NetworkOptions,
) -> anyhow::Result<ContainerRuntime> {
    let places = InstallOptions {
        bin_dir: options.cni_bin_dir.clone(),
        conf_dir: options.cni_conf_dir.clone(),
        executable: std::env::current_exe().context("find this executable")?,
    };
    let setup = tokio::task::spawn_blocking(move || {
        network::setup(&network).context("set up the pod network")?;
        network::cni::install(&places, &network).context("install the network plugin")
    });
    let runtime = match foreign {
        Some(socket) => ContainerRuntime::Foreign(socket),
        None => {
            let containerd = Containerd::start(options).await?;
            import_pause_image(&containerd).await.context("import the pause image")?;
            ContainerRuntime::Own(containerd)
        }
    };
    setup.await.context("set up the pod network")??;
    Ok(runtime)
}

async fn import_pause_image(containerd: &Containerd) -> anyhow::Result<()> {
    if containerd.runtime().image_status(PAUSE_IMAGE.to_owned()).await?.is_some() {
        return Ok(());
    }
    let architecture =
        Architecture::host().context("there is no pause program for this processor")?;
    let options = containerd.options();
    let path = options.run_dir.join("pause.tar");
    let file =
        std::fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    cri::archive::write(file, &[pause_image(architecture)]).context("write the archive")?;
    import(&options.socket(), containerd.snapshotter(), &path).await?;
    std::fs::remove_file(&path).context("remove the archive")
}

async fn import(socket: &Path, snapshotter: Snapshotter, archive: &Path) -> anyhow::Result<()> {
    cri::containerd::import(socket, snapshotter, archive).await.map(drop).map_err(Into::into)
}

/// Starts kubelet, service proxy and DNS.
pub(super) fn start(
    plan: &Plan,
    network: NetworkOptions,
    runtime: ContainerRuntime,
    control: &ControlPlane,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let runtime_client = match &runtime {
        ContainerRuntime::Own(containerd) => containerd.runtime(),
        ContainerRuntime::Foreign(socket) => GrpcRuntime::new(socket),
    };
    if let ContainerRuntime::Own(containerd) = runtime {
        let shutdown = shutdown.clone();
        parts.spawn(async move {
            containerd.run(shutdown).await;
            ("the container runtime", Ok(()))
        });
    }
    start_kubelet(plan, runtime_client, control, parts, shutdown)?;
    start_network(plan, network, control, parts, shutdown)?;
    parts.spawn(welcome(plan_node(plan, control), shutdown.clone()));
    Ok(())
}

fn start_kubelet(
    plan: &Plan,
    runtime: GrpcRuntime,
    control: &ControlPlane,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let user = format!("system:node:{}", plan.node_name);
    let caches = identity::caches(&control.api, &user, &["system:nodes"], shutdown);
    let addresses = vec![plan.node_address, IpAddr::from([127, 0, 0, 1])];
    let profile = Profile {
        organization: Some("system:nodes".to_owned()),
        ..Profile::server(user, vec![plan.node_name.clone(), "localhost".to_owned()], addresses)
    };
    let identity = control.authority.identity(&plan.layout.pki(), "kubelet", &profile)?;
    let dependencies = KubeletDependencies {
        caches,
        runtime: Arc::new(runtime),
        identity: ServerIdentity {
            certificate: Certificate::new(identity.chain()?, identity.private_key()?)?,
            client_authorities: vec![control.authority.certificate_der()?],
        },
    };
    let options = KubeletOptions {
        node_ips: vec![plan.node_address],
        log_dir: plan.layout.pod_logs(),
        listen: ([0, 0, 0, 0], plan.options.kubelet_port).into(),
        cluster_dns: vec![plan.service_address(DNS_ADDRESS)?],
        cluster_domain: plan.options.cluster_domain.clone(),
        cgroup_root: format!("/{}", plan.options.cgroup),
        ..KubeletOptions::new(plan.node_name.clone(), plan.layout.kubelet())
    };
    let kubelet = Kubelet::new(options, dependencies);
    let shutdown = shutdown.clone();
    parts.spawn(async move { ("the kubelet", kubelet.run(shutdown).await.map_err(Into::into)) });
    Ok(())
}

/// The service proxy and DNS see the same Services and endpoints, through the same caches.
fn start_network(
    plan: &Plan,
    network: NetworkOptions,
    control: &ControlPlane,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let caches = identity::caches(&control.api, "system:kube-proxy", &[], shutdown);
    let gateway = network.gateway();
    let IpAddr::V4(service_ip) = plan.service_address(DNS_ADDRESS)? else {
        bail!("--service-cidr must be an IPv4 network");
    };
    let dns = DnsOptions {
        domain: plan.options.cluster_domain.clone(),
        service_ip,
        allow: vec![plan.options.cluster_cidr.into()],
        own_networks: vec![plan.options.cluster_cidr, plan.options.service_cidr],
        ..DnsOptions::new(plan.node_name.clone(), gateway)
    };
    let (proxy, dns) = (Proxy::new(network, caches.clone()), Dns::new(dns, caches));
    let (stop_proxy, stop_dns) = (shutdown.clone(), shutdown.clone());
    parts.spawn(
        async move { ("the service proxy", proxy.run(stop_proxy).await.map_err(Into::into)) },
    );
    parts.spawn(async move { ("cluster DNS", dns.run(stop_dns).await.map_err(Into::into)) });
    Ok(())
}

/// A node that has just registered, and what it is to be given.
struct Newcomer {
    nodes: Api<Node>,
    name: String,
    pod_network: String,
    mark: PathBuf,
}

fn plan_node(plan: &Plan, control: &ControlPlane) -> Newcomer {
    let client = identity::client(&control.api, "system:kube-controller-manager", &[]);
    Newcomer {
        nodes: Api::all(client),
        name: plan.node_name.clone(),
        pod_network: plan.pod_network.to_string(),
        mark: plan.layout.ready_mark(std::process::id()),
    }
}

/// Gives the node its pod network once it has registered, and tells when it is Ready.
async fn welcome(newcomer: Newcomer, shutdown: CancellationToken) -> Part {
    let work = async {
        let Newcomer { nodes, name, pod_network, mark } = newcomer;
        await_condition(nodes.clone(), &name, |node: Option<&Node>| node.is_some()).await?;
        let spec = json!({"spec": {"podCIDR": pod_network, "podCIDRs": [pod_network]}});
        nodes
            .patch(&name, &PatchParams::default(), &Patch::Merge(spec))
            .await
            .context("give the node its pod network")?;
        await_condition(nodes, &name, is_ready).await?;
        super::step("the node is Ready");
        std::fs::write(&mark, b"").with_context(|| format!("write {}", mark.display()))?;
        anyhow::Ok(())
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = shutdown.cancelled() => return (NEWCOMER, Ok(())),
    };
    match outcome {
        Ok(()) => shutdown.cancelled().await,
        Err(error) => return (NEWCOMER, Err(error)),
    }
    (NEWCOMER, Ok(()))
}

const NEWCOMER: &str = "the registration of the node";

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    })
}
