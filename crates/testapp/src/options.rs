//! Settings of the website, read once from environment and arguments.

use std::path::PathBuf;
use std::time::Duration;

/// How the website behaves.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The version it says it is.
    pub(crate) version: String,
    /// Port to listen on, on all addresses.
    pub(crate) port: u16,
    /// Directory of mounted configuration.
    pub(crate) config_dir: PathBuf,
    /// How long after its start it says it is not ready.
    pub(crate) ready_delay: Duration,
    /// Whether it never becomes ready.
    pub(crate) fail_readyz: bool,
    /// Whether it is never healthy.
    pub(crate) fail_healthz: bool,
    /// How long after its start it stops being healthy.
    pub(crate) fail_healthz_after: Option<Duration>,
    /// It is not ready while this file exists.
    pub(crate) not_ready_file: Option<PathBuf>,
    /// After SIGTERM, how long idle connections stay open for a last request.
    pub(crate) drain: Duration,
    /// After SIGTERM, when it exits whatever is under way.
    pub(crate) grace: Duration,
    /// Connections served at once; others wait in the kernel's queue.
    pub(crate) max_connections: usize,
}

/// The version in `VERSION`, or that of this crate.
pub(crate) fn version() -> String {
    text("VERSION").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

impl Options {
    /// Reads the environment; `--version V` and `--port P` win over it.
    pub(crate) fn from_environment(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            version: version(),
            port: number("PORT", 8080)?,
            config_dir: text("CONFIG_DIR").unwrap_or_else(|| "/etc/website".to_owned()).into(),
            ready_delay: Duration::from_millis(number("READY_DELAY_MS", 0)?),
            fail_readyz: flag("FAIL_READYZ"),
            fail_healthz: flag("FAIL_HEALTHZ"),
            fail_healthz_after: match number::<u64>("FAIL_HEALTHZ_AFTER_MS", 0)? {
                0 => None,
                millis => Some(Duration::from_millis(millis)),
            },
            not_ready_file: text("NOT_READY_FILE").map(PathBuf::from),
            drain: Duration::from_millis(number("DRAIN_MS", 500)?),
            grace: Duration::from_millis(number("GRACE_MS", 25_000)?),
            max_connections: number("MAX_CONNECTIONS", 512)?,
        };
        let mut rest = arguments.iter().filter(|one| *one != "serve");
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--version" => options.version.clone_from(value),
                "--port" => {
                    options.port = value.parse().map_err(|_| format!("{value} is no port"))?;
                }
                _ => return Err(format!("unknown option {name}")),
            }
        }
        if options.max_connections == 0 {
            return Err("MAX_CONNECTIONS must be at least 1".to_owned());
        }
        Ok(options)
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn flag(name: &str) -> bool {
    text(name).is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no"))
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T, String> {
    match text(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| format!("{name}={value} is no number")),
    }
}
