//! Putting the plugin where the container runtime looks for it: links to this executable and one
//! network configuration list.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::types::{Config, RuntimeConfig};
use crate::options::NetworkOptions;

/// The name under which the executable is the plugin of pods.
pub const PLUGIN_NAME: &str = "skiff-cni";
/// The name under which it is the plugin that brings `lo` up, which containerd 1.x demands.
pub const LOOPBACK_NAME: &str = "loopback";
/// Sorts before what other networks usually install, since runtimes take the first file.
const CONFIG_NAME: &str = "10-skiff.conflist";

/// Where to install.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// Directory in which the runtime looks for plugins.
    pub bin_dir: PathBuf,
    /// Directory in which the runtime looks for configurations.
    pub conf_dir: PathBuf,
    /// The executable the links lead to.
    pub executable: PathBuf,
}

/// Why the plugin was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file operation failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Writes the links and the configuration; what is already right is left alone. Returns the path
/// of the configuration.
pub fn install(places: &InstallOptions, options: &NetworkOptions) -> Result<PathBuf, InstallError> {
    for directory in [&places.bin_dir, &places.conf_dir] {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
    }
    for name in [PLUGIN_NAME, LOOPBACK_NAME] {
        link(&places.bin_dir.join(name), &places.executable)?;
    }
    let config = Config {
        cni_version: String::new(),
        name: String::new(),
        kind: PLUGIN_NAME.to_owned(),
        bridge: options.bridge.clone(),
        table: options.table.clone(),
        pod_networks: options.pod_networks.clone(),
        leases_dir: options.leases_dir(),
        policy_socket: options.policy.then(|| crate::policy::socket(&options.data_dir)),
        nft: options.nft.clone(),
        runtime_config: RuntimeConfig::default(),
        prev_result: None,
        valid_attachments: None,
    };
    let mut plugin = serde_json::to_value(&config).unwrap_or_default();
    plugin["capabilities"] = json!({ "portMappings": true, "bandwidth": true });
    if let Some(fields) = plugin.as_object_mut() {
        // The list carries both for all of its plugins.
        fields.remove("cniVersion");
        fields.remove("name");
    }
    let list = json!({ "cniVersion": "1.0.0", "name": "skiff", "plugins": [plugin] });
    let text = format!("{list:#}\n");
    let path = places.conf_dir.join(CONFIG_NAME);
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(path);
    }
    let temporary = places.conf_dir.join(".skiff.new");
    fs::write(&temporary, text).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(failed("rename to", &path))?;
    Ok(path)
}

/// Puts the plugin that brings `lo` up where somebody else's are, unless there is one.
pub fn install_loopback(places: &InstallOptions) -> Result<(), InstallError> {
    fs::create_dir_all(&places.bin_dir).map_err(failed("create", &places.bin_dir))?;
    let path = places.bin_dir.join(LOOPBACK_NAME);
    if path.exists() { Ok(()) } else { link(&path, &places.executable) }
}

/// Makes `path` a symbolic link to `target`, whatever it was.
fn link(path: &Path, target: &Path) -> Result<(), InstallError> {
    if fs::read_link(path).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        _ => {}
    }
    symlink(target, &temporary).map_err(failed("link", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("rename to", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_is_installing_once() {
        let directory = tempfile::tempdir().expect("directory");
        let places = InstallOptions {
            bin_dir: directory.path().join("bin"),
            conf_dir: directory.path().join("conf"),
            executable: "/usr/local/bin/skiff".into(),
        };
        let options = NetworkOptions::new("node", directory.path());
        let path = install(&places, &options).expect("install");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(install(&places, &options).expect("again"), path);
        let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(list["plugins"][0]["type"], PLUGIN_NAME);
        assert_eq!(list["plugins"][0]["capabilities"]["portMappings"], true);
        let config: Config = serde_json::from_value(list["plugins"][0].clone()).expect("read back");
        assert_eq!(config.pod_networks, options.pod_networks);
        assert_eq!(
            fs::read_link(places.bin_dir.join(LOOPBACK_NAME)).expect("link"),
            places.executable
        );
    }
}
