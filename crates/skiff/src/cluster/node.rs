//! The node: container runtime, pod network, kubelet, service proxy, DNS.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cri::archive::{Architecture, PAUSE_IMAGE, pause_image};
use cri::containerd::{Containerd, ContainerdOptions, Snapshotter};
use cri::{GrpcRuntime, Runtime};
use network::NetworkOptions;
use network::cni::InstallOptions;

use super::ContainerRuntime;

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
    let architecture = Architecture::host().context("there is no pause program for this processor")?;
    let options = containerd.options();
    let path = options.run_dir.join("pause.tar");
    let file = std::fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    cri::archive::write(file, &[pause_image(architecture)]).context("write the archive")?;
    import(&options.socket(), containerd.snapshotter(), &path).await?;
    std::fs::remove_file(&path).context("remove the archive")
}

async fn import(socket: &Path, snapshotter: Snapshotter, archive: &Path) -> anyhow::Result<()> {
    cri::containerd::import(socket, snapshotter, archive).await.map(drop).map_err(Into::into)
}

/// A client of the node's runtime.
fn client(runtime: &ContainerRuntime) -> GrpcRuntime {
    match runtime {
        ContainerRuntime::Own(containerd) => containerd.runtime(),
        ContainerRuntime::Foreign(socket) => GrpcRuntime::new(socket),
    }
}
