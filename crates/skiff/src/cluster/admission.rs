//! What servers can be told about admission. Pure, but for the file that is read.

use std::path::PathBuf;

use apiserver::{AdmissionOptions, DefaultTolerationSeconds};
use clap::Args;

/// Which admission plugins are asked, and what they are told.
#[derive(Args, Debug, Clone)]
pub(crate) struct AdmissionFlags {
    /// Admission plugins to ask beside those that are asked by default, as in AlwaysPullImages
    #[arg(long, value_name = "PLUGIN", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins not to ask, although they are asked by default
    #[arg(long, value_name = "PLUGIN", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// What admission plugins are told: an AdmissionConfiguration
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
}

impl AdmissionFlags {
    pub(super) fn options(
        &self,
        tolerations: DefaultTolerationSeconds,
    ) -> anyhow::Result<AdmissionOptions> {
        let mut options = AdmissionOptions {
            enabled: self.enable_admission_plugins.clone(),
            disabled: self.disable_admission_plugins.clone(),
            tolerations,
            ..AdmissionOptions::default()
        };
        if let Some(path) = &self.admission_control_config_file {
            options.read(path)?;
        }
        Ok(options)
    }
}
