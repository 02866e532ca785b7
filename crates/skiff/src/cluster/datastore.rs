//! Where the cluster's state is kept: a database in the data directory, or an etcd cluster that several
//! servers share. With etcd the servers also share the keys that make them one cluster: they lie in etcd,
//! sealed with a secret that every server is given (docs/adr/0011).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use pki::{Authority, Bundle, TokenKeys};
use registry::{Header, Rows};
use store::{Embedded, Etcd, EtcdOptions, EtcdTls, SealOptions, SharedRecords, Store};

use super::options::ServerPlan;

/// The key files that all servers of a cluster have in common.
const SHARED: [&str; 3] = ["ca.key", "service-accounts.key", "storage.keys"];
/// The record in etcd that holds them.
const RECORD: &str = "keys";
/// Fewer characters than this are guessed.
const SHORTEST_SECRET: usize = 16;

/// What a server can be told about its datastore.
#[derive(Args, Debug, Clone)]
pub(crate) struct DatastoreFlags {
    /// Members of an etcd cluster that keeps the state, shared by all servers of the cluster; several with
    /// commas between [default: a database in the data directory]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) datastore_endpoint: Vec<String>,
    /// Certificate of the authority that etcd's certificates come from
    #[arg(long, value_name = "FILE", requires = "datastore_endpoint")]
    datastore_cafile: Option<PathBuf>,
    /// Certificate by which this server shows itself to etcd
    #[arg(long, value_name = "FILE", requires = "datastore_keyfile")]
    datastore_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "datastore_certfile")]
    datastore_keyfile: Option<PathBuf>,
    /// File with the secret that seals the cluster's keys in etcd, the same on all servers [default:
    /// pki/datastore.secret in the data directory, made by the first server]
    #[arg(long, value_name = "FILE", requires = "datastore_endpoint")]
    datastore_secret_file: Option<PathBuf>,
}

impl DatastoreFlags {
    /// Whether other servers may work on the same state.
    pub(crate) fn is_shared(&self) -> bool {
        !self.datastore_endpoint.is_empty()
    }
}

/// The store, whichever it is.
pub(crate) enum Datastore {
    Embedded(Embedded<Header>),
    Etcd(Etcd<Header>),
}

impl Datastore {
    pub(crate) async fn open(plan: &ServerPlan, rows: &Arc<Rows>) -> anyhow::Result<Self> {
        let header = registry::header_reader(rows.clone());
        if plan.flags.datastore.is_shared() {
            let mut options = etcd_options(plan)?;
            let prefixes = rows.sealed_prefixes();
            options.seal = Some(SealOptions { key_file: plan.layout.storage_key(), prefixes });
            let etcd = Etcd::open(options, header).await.context("open the store")?;
            return Ok(Self::Etcd(etcd));
        }
        let options = store::Options::new(plan.layout.database())
            .seal(plan.layout.storage_key(), rows.sealed_prefixes());
        // Reading the log is blocking work.
        let open = move || Embedded::open(options, header);
        Ok(Self::Embedded(tokio::task::spawn_blocking(open).await.context("open the store")??))
    }

    pub(crate) fn store(&self) -> Arc<dyn Store<Header>> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Etcd(store) => Arc::new(store.clone()),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Etcd(store) => store.close().await,
        }
    }
}

fn etcd_options(plan: &ServerPlan) -> anyhow::Result<EtcdOptions> {
    let flags = &plan.flags.datastore;
    let read = |path: &Path, flag: &str| {
        std::fs::read(path).with_context(|| format!("read {} ({flag})", path.display()))
    };
    let mut options =
        EtcdOptions::new(flags.datastore_endpoint.clone(), plan.advertised().to_string());
    if let Some(authority) = &flags.datastore_cafile {
        let identity = match (&flags.datastore_certfile, &flags.datastore_keyfile) {
            (Some(certificate), Some(key)) => Some((
                read(certificate, "--datastore-certfile")?,
                read(key, "--datastore-keyfile")?,
            )),
            _ => None,
        };
        let authority = read(authority, "--datastore-cafile")?;
        options.tls = Some(EtcdTls { authority, identity });
    } else if let Some(endpoint) =
        flags.datastore_endpoint.iter().find(|endpoint| endpoint.starts_with("https:"))
    {
        bail!("{endpoint} needs the certificate of etcd's authority: give --datastore-cafile");
    }
    Ok(options)
}

/// Brings the keys that servers share into this server's key directory; to be done before they are used.
/// The first server of a cluster makes them. Nothing to do where nobody shares anything.
pub(crate) async fn share_keys(plan: &ServerPlan) -> anyhow::Result<()> {
    if !plan.flags.datastore.is_shared() {
        return Ok(());
    }
    let records = SharedRecords::connect(&etcd_options(plan)?)?;
    let directory = plan.layout.pki();
    let own = Bundle::read(&directory, &SHARED)?;
    let secret_file = SecretFile::of(plan);
    let (sealed, secret) = match records.get(RECORD).await? {
        Some(sealed) => (sealed, secret_file.read()?),
        None => {
            let secret = secret_file.read()?.map_or_else(|| pki::random_secret(32), Ok)?;
            let keys = own.clone().map_or_else(|| make_keys(&directory), Ok)?;
            let sealed = keys.seal(&secret)?;
            // Another server may be first at the same moment; then its keys count.
            (records.get_or_create(RECORD, sealed.into()).await?, Some(secret))
        }
    };
    let opened = secret.as_deref().map(|secret| Bundle::open(&sealed, secret)).transpose()?;
    let Some(theirs) = opened.flatten() else {
        bail!(
            "the cluster's keys are in the datastore, sealed with a secret that this server does not have: \
             copy pki/datastore.secret from the data directory of the first server to {}, or give a \
             copy with --datastore-secret-file",
            secret_file.path.display()
        );
    };
    if own.as_ref().is_some_and(|own| *own != theirs) {
        bail!(
            "{} holds the keys of another cluster than the one in the datastore: choose another --data-dir",
            directory.display()
        );
    }
    if own.is_none() {
        theirs.write(&directory, &SHARED)?;
    }
    secret_file.keep(secret.as_deref().unwrap_or_default())
}

/// The keys of a new cluster.
fn make_keys(directory: &Path) -> anyhow::Result<Bundle> {
    let fresh = directory.join("new");
    Authority::load_or_create(&fresh, "ca")?;
    TokenKeys::load_or_create(&fresh.join("service-accounts.key"))?;
    SealOptions { key_file: fresh.join("storage.keys"), prefixes: Vec::new() }.make_key()?;
    let keys = Bundle::read(&fresh, &SHARED)?.context("the keys that were just made are gone")?;
    std::fs::remove_dir_all(&fresh)
        .with_context(|| format!("remove {}, which holds keys", fresh.display()))?;
    Ok(keys)
}

/// Where the secret is.
struct SecretFile {
    path: PathBuf,
    /// Whether it was named on the command line.
    given: bool,
}

impl SecretFile {
    fn of(plan: &ServerPlan) -> Self {
        match &plan.flags.datastore.datastore_secret_file {
            Some(path) => Self { path: path.clone(), given: true },
            None => Self { path: plan.layout.pki().join("datastore.secret"), given: false },
        }
    }

    fn read(&self) -> anyhow::Result<Option<String>> {
        let path = self.path.display();
        let Some(text) = pki::read(&self.path)? else {
            if self.given {
                bail!("{path} does not exist (--datastore-secret-file)");
            }
            return Ok(None);
        };
        let secret = text.trim();
        if secret.len() < SHORTEST_SECRET {
            bail!(
                "{path} holds no usable secret: it must have {SHORTEST_SECRET} characters or more"
            );
        }
        Ok(Some(secret.to_owned()))
    }

    /// Keeps a secret that was made here, for the next start and for other servers.
    fn keep(&self, secret: &str) -> anyhow::Result<()> {
        if self.given || self.path.exists() {
            return Ok(());
        }
        Ok(pki::write_private(&self.path, format!("{secret}\n").as_bytes())?)
    }
}
