//! Configuration of authentication and authorization that is read again when its file has changed.
//!
//! A file that cannot be used leaves what is in force as it is. Refuses to know what the files say.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    authn::AuthenticationConfiguration,
    authz::AuthorizationConfiguration,
    metrics::{Tally, describe},
    server::Core,
};

/// A file, and what of it is in force.
#[derive(Clone, Debug)]
pub struct ConfigurationFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it said.
    pub text: String,
}

/// Which files are read again, and how often they are looked at.
#[derive(Clone, Debug)]
pub struct ReloadOptions {
    /// The file of the AuthenticationConfiguration.
    pub authentication: Option<ConfigurationFile>,
    /// The file of the AuthorizationConfiguration.
    pub authorization: Option<ConfigurationFile>,
    /// How often.
    pub every: Duration,
}

impl Default for ReloadOptions {
    fn default() -> Self {
        Self { authentication: None, authorization: None, every: Duration::from_secs(5) }
    }
}

/// How the last reloads went.
#[derive(Default)]
pub(crate) struct Reloads {
    counts: Tally<2>,
    last: [AtomicI64; 2],
}

impl Reloads {
    fn note(&self, what: &'static str, outcome: Result<(), String>) {
        let at = usize::from(outcome.is_err());
        self.counts.count(at);
        self.last[at].store(jiff::Timestamp::now().as_second(), Relaxed);
        match outcome {
            Ok(()) => tracing::info!(what, "configuration was read again"),
            Err(why) => tracing::error!(what, why, "configuration stays as it was"),
        }
    }

    /// Writes metrics.
    pub(crate) fn write(&self, out: &mut String, what: &str) {
        const STATUS: [&str; 2] = ["success", "failure"];
        let name = format!("apiserver_{what}_config_controller_automatic_reloads_total");
        describe(out, &name, "counter", "Times that the configuration was read again.");
        for (status, count) in STATUS.iter().zip(self.counts.counts()) {
            let _ = writeln!(out, "{name}{{status=\"{status}\"}} {count}");
        }
        let name =
            format!("apiserver_{what}_config_controller_automatic_reload_last_timestamp_seconds");
        describe(out, &name, "gauge", "When it was read again last.");
        for (status, last) in STATUS.iter().zip(&self.last) {
            let last = last.load(Relaxed);
            if last > 0 {
                let _ = writeln!(out, "{name}{{status=\"{status}\"}} {last}");
            }
        }
    }
}

/// Looks at the files for ever.
pub(crate) async fn keep(core: &Core) {
    let ReloadOptions { mut authentication, mut authorization, every } =
        core.options.reload.clone();
    if authentication.is_none() && authorization.is_none() {
        return std::future::pending().await;
    }
    let [authn, authz] = &core.reloads;
    let parse = |text: &str| AuthenticationConfiguration::parse(text, &core.options.issuer);
    let first = authentication.as_ref().and_then(|file| parse(&file.text).ok());
    let first = first.and_then(|configuration| configuration.anonymous);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(text) = changed(&mut authentication).await {
            let parsed = text.and_then(|text| parse(&text)).and_then(|configuration| {
                if configuration.anonymous != first {
                    return Err("anonymous: changed from initial configuration file".into());
                }
                let replaced = core.authenticator.trust(&configuration);
                replaced.map_err(|error| error.to_string())
            });
            authn.note("authentication", parsed);
        }
        if let Some(text) = changed(&mut authorization).await {
            let opened = match text.and_then(|text| AuthorizationConfiguration::parse(&text)) {
                Ok(configuration) => configuration.open().await.map_err(|error| error.to_string()),
                Err(why) => Err(why),
            };
            authz.note("authorization", opened.map(|modes| core.authorizer.ask_others(modes)));
        }
    }
}

/// What a file says now, if that is something new. One that cannot be read is tried again.
async fn changed(file: &mut Option<ConfigurationFile>) -> Option<Result<String, String>> {
    let file = file.as_mut()?;
    match tokio::fs::read_to_string(&file.path).await {
        Ok(text) if text == file.text => None,
        Ok(text) => {
            file.text.clone_from(&text);
            Some(Ok(text))
        }
        Err(error) => Some(Err(format!("read {}: {error}", file.path.display()))),
    }
}
