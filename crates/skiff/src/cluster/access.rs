//! What the API server can be told about who may enter, what they may do, how many at once, and what is noted of it:
//! the flags of kube-apiserver, under the same names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use apiserver::audit::{LogOptions, Mode, Policy, SinkOptions, Truncate, WebhookOptions};
use apiserver::authn::{
    Anonymous, AuthenticationConfiguration, FrontProxy, TokenWebhook, static_tokens,
};
use apiserver::authz::AuthorizationConfiguration;
use apiserver::hook::Hook;
use apiserver::{ApiServerOptions, ConfigurationFile, FlowOptions, TracingConfiguration};
use clap::Args;
use http::HeaderName;
use pki::TokenKeys;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use super::options::duration;

/// How long a webhook may take to judge a token or to take events.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessFlags {
    /// File with an AuthenticationConfiguration: issuers of tokens, anonymous requests
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    #[command(flatten)]
    oidc: OidcFlags,
    /// Who signs tokens of service accounts, an https URL [default: the API server's name in the cluster]
    #[arg(long, value_name = "URL")]
    service_account_issuer: Option<String>,
    /// Key that signs tokens of service accounts (P-256, P-384 or RSA) [default: one of the cluster's own]
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Further keys whose tokens are accepted, public or private; may be repeated
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Audiences of this API server [default: the issuer]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Whether requests without credentials go on, as system:anonymous
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    anonymous_auth: bool,
    /// File with tokens: token,user,uid,"group,group" on each line
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Kubeconfig of a webhook that judges tokens
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its judgements are remembered
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
    #[command(flatten)]
    front: FrontFlags,
    /// File with an AuthorizationConfiguration: who is asked what users may do [default: Node, RBAC]
    #[arg(long, value_name = "FILE")]
    authorization_config: Option<PathBuf>,
    /// Reads at once; with the next, the seats that priority levels share
    #[arg(long, default_value_t = 400, value_name = "NUMBER")]
    max_requests_inflight: usize,
    /// Writes at once
    #[arg(long, default_value_t = 200, value_name = "NUMBER")]
    max_mutating_requests_inflight: usize,
    /// Whether priority levels share them; else reads and writes are bounded apart
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    enable_priority_and_fairness: bool,
    /// How long a request that is no stream may take
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration)]
    request_timeout: Duration,
    /// File with a TracingConfiguration: where spans of requests are sent over OTLP
    #[arg(long, value_name = "FILE")]
    tracing_config_file: Option<PathBuf>,
    #[command(flatten)]
    audit: AuditFlags,
}

/// One issuer of tokens, in the older way.
#[derive(Args, Debug, Clone)]
struct OidcFlags {
    /// Issuer of tokens (OpenID Connect), an https URL
    #[arg(
        long,
        value_name = "URL",
        requires = "oidc_client_id",
        conflicts_with = "authentication_config"
    )]
    oidc_issuer_url: Option<String>,
    /// Audience of its tokens
    #[arg(long, value_name = "NAME", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Authority of its certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// Claim with the user's name
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    oidc_username_claim: String,
    /// What users' names begin with; - is nothing [default: the issuer and #, unless the claim is email]
    #[arg(long, value_name = "PREFIX")]
    oidc_username_prefix: Option<String>,
    /// Claim with the user's groups
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// What groups' names begin with
    #[arg(long, value_name = "PREFIX")]
    oidc_groups_prefix: Option<String>,
    /// Claim that tokens must have; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", value_delimiter = ',')]
    oidc_required_claim: Vec<String>,
}

impl OidcFlags {
    /// The same as an AuthenticationConfiguration.
    fn configuration(&self) -> anyhow::Result<Option<String>> {
        let (Some(issuer), Some(audience)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        let claim = &self.oidc_username_claim;
        let prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if claim == "email" => String::new(),
            None => format!("{issuer}#"),
        };
        let authority = self.oidc_ca_file.as_deref().map(read).transpose()?;
        let required = self.oidc_required_claim.iter().map(|pair| {
            let (claim, value) = pair.split_once('=').unwrap_or((pair, ""));
            json!({"claim": claim, "requiredValue": value})
        });
        let mut mappings = json!({"username": {"claim": claim, "prefix": prefix}});
        if let Some(claim) = &self.oidc_groups_claim {
            let prefix = self.oidc_groups_prefix.as_deref().unwrap_or_default();
            mappings["groups"] = json!({"claim": claim, "prefix": prefix});
        }
        let configuration = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": issuer, "audiences": [audience], "certificateAuthority": authority.unwrap_or_default()},
                "claimValidationRules": required.collect::<Vec<_>>(), "claimMappings": mappings
            }]
        });
        Ok(Some(configuration.to_string()))
    }
}

/// Proxies that speak for users.
#[derive(Args, Debug, Clone)]
struct FrontFlags {
    /// Authority of proxies that name users in headers
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of such proxies [default: any]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name
    #[arg(long, value_name = "HEADER", value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<HeaderName>,
    /// Headers with the user's groups
    #[arg(long, value_name = "HEADER", value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<HeaderName>,
    /// Headers with the user's uid
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    requestheader_uid_headers: Vec<HeaderName>,
    /// What headers with the user's extras begin with
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
}

/// What is noted of requests.
#[derive(Args, Debug, Clone)]
struct AuditFlags {
    /// File with an audit Policy [default: everything's metadata]
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// File that audit events are appended to; - is standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Megabytes after which the audit log is put aside
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    audit_log_maxsize: u64,
    /// Old audit logs that are kept; 0 is all
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    audit_log_maxbackup: usize,
    /// Days that old audit logs are kept; 0 is for ever
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u32,
    /// Kubeconfig of a webhook that takes audit events
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Audit events in one request
    #[arg(long, default_value_t = 400, value_name = "NUMBER")]
    audit_webhook_batch_max_size: usize,
    /// How long an audit event may wait for others
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether requests wait for the audit log: batch, blocking or blocking-strict
    #[arg(long, default_value = "batch", value_name = "MODE")]
    audit_log_mode: Mode,
    /// Whether requests wait for the webhook
    #[arg(long, default_value = "batch", value_name = "MODE")]
    audit_webhook_mode: Mode,
    /// Whether events that are too large for the audit log lose what was sent and answered
    #[arg(long)]
    audit_log_truncate_enabled: bool,
    /// Bytes of one event in the audit log
    #[arg(long, default_value_t = 100 << 10, value_name = "BYTES")]
    audit_log_truncate_max_event_size: usize,
    /// Whether events that are too large for the webhook lose what was sent and answered
    #[arg(long)]
    audit_webhook_truncate_enabled: bool,
    /// Bytes of one event for the webhook
    #[arg(long, default_value_t = 100 << 10, value_name = "BYTES")]
    audit_webhook_truncate_max_event_size: usize,
    /// Bytes of events in one request
    #[arg(long, default_value_t = 10 << 20, value_name = "BYTES")]
    audit_webhook_truncate_max_batch_size: usize,
}

impl AccessFlags {
    /// Authorities of proxies, for TLS.
    pub(crate) fn front_authorities(&self) -> anyhow::Result<Option<Vec<CertificateDer<'static>>>> {
        let Some(path) = &self.front.requestheader_client_ca_file else { return Ok(None) };
        let pem = read(path)?;
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let certificates = certificates.with_context(|| format!("read {}", path.display()))?;
        if certificates.is_empty() {
            return Err(anyhow!("{} holds no certificate", path.display()));
        }
        Ok(Some(certificates))
    }

    /// Keys of service accounts' tokens; `own` is where the cluster keeps its own.
    pub(crate) fn token_keys(&self, own: &Path) -> anyhow::Result<TokenKeys> {
        let signing = self.service_account_signing_key_file.as_deref();
        if let Some(path) = signing.filter(|path| !path.exists()) {
            return Err(anyhow!("{} does not exist", path.display()));
        }
        let mut keys = TokenKeys::load_or_create(signing.unwrap_or(own))?;
        for path in &self.service_account_key_file {
            keys.accept(path)?;
        }
        Ok(keys)
    }

    /// Puts everything into the API server's options, whose issuer is known already.
    pub(crate) async fn apply(&self, options: &mut ApiServerOptions) -> anyhow::Result<()> {
        options.flow = FlowOptions {
            max_reads: self.max_requests_inflight,
            max_writes: self.max_mutating_requests_inflight,
            fair: self.enable_priority_and_fairness,
        };
        options.request_timeout = self.request_timeout;
        if let Some(issuer) = &self.service_account_issuer {
            options.issuer.clone_from(issuer);
            options.audiences = vec![issuer.clone()];
        }
        if !self.api_audiences.is_empty() {
            options.audiences.clone_from(&self.api_audiences);
        }
        let authentication = &mut options.authentication;
        if let Some(path) = &self.authentication_config {
            let text = read(path)?;
            let parsed = AuthenticationConfiguration::parse(&text, &options.issuer);
            authentication.configuration = parsed.map_err(wrong(path))?;
            let file = ConfigurationFile { path: path.clone(), text };
            options.reload.authentication = Some(file);
        }
        if let Some(text) = self.oidc.configuration()? {
            let parsed = AuthenticationConfiguration::parse(&text, &options.issuer);
            authentication.configuration = parsed.map_err(|why| anyhow!("--oidc-…: {why}"))?;
        }
        if !self.anonymous_auth {
            authentication.configuration.anonymous = Some(Anonymous::everywhere(false));
        }
        if let Some(path) = &self.token_auth_file {
            authentication.static_tokens = static_tokens(&read(path)?).map_err(wrong(path))?;
        }
        if let Some(path) = &self.authentication_token_webhook_config_file {
            let hook = Hook::from_kubeconfig(path, HOOK_TIMEOUT).await?;
            let remember = self.authentication_token_webhook_cache_ttl;
            authentication.webhook = Some(TokenWebhook { hook, remember });
        }
        authentication.front = self.front.read()?;
        if let Some(path) = &self.authorization_config {
            let text = read(path)?;
            let parsed = AuthorizationConfiguration::parse(&text).map_err(wrong(path))?;
            options.authorization = Some(parsed);
            let file = ConfigurationFile { path: path.clone(), text };
            options.reload.authorization = Some(file);
        }
        if let Some(path) = &self.tracing_config_file {
            let parsed = TracingConfiguration::parse(&read(path)?).map_err(wrong(path))?;
            options.tracing = Some(parsed);
        }
        self.audit.apply(&mut options.audit).await
    }
}

impl FrontFlags {
    fn read(&self) -> anyhow::Result<Option<FrontProxy>> {
        let Some(path) = &self.requestheader_client_ca_file else { return Ok(None) };
        let prefixes = self.requestheader_extra_headers_prefix.iter();
        Ok(Some(FrontProxy {
            client_ca: read(path)?,
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: self.requestheader_username_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            extra_prefixes: prefixes.map(|prefix| prefix.to_ascii_lowercase()).collect(),
        }))
    }
}

impl AuditFlags {
    async fn apply(&self, options: &mut apiserver::audit::AuditOptions) -> anyhow::Result<()> {
        if let Some(path) = &self.audit_policy_file {
            options.policy = Some(Policy::parse(&read(path)?).map_err(wrong(path))?);
        }
        let truncate = |enabled: bool, max_event, max_batch| {
            enabled.then_some(Truncate { max_event, max_batch })
        };
        let sink = SinkOptions {
            mode: self.audit_log_mode,
            truncate: truncate(
                self.audit_log_truncate_enabled,
                self.audit_log_truncate_max_event_size,
                usize::MAX,
            ),
        };
        options.log = self.audit_log_path.as_ref().map(|path| LogOptions {
            sink,
            max_size: self.audit_log_maxsize << 20,
            max_backups: self.audit_log_maxbackup,
            max_age: self.audit_log_maxage,
            ..LogOptions::new(path)
        });
        if let Some(path) = &self.audit_webhook_config_file {
            let hook = Hook::from_kubeconfig(path, HOOK_TIMEOUT).await?;
            let truncate = truncate(
                self.audit_webhook_truncate_enabled,
                self.audit_webhook_truncate_max_event_size,
                self.audit_webhook_truncate_max_batch_size,
            );
            options.webhook = Some(WebhookOptions {
                sink: SinkOptions { mode: self.audit_webhook_mode, truncate },
                max_batch: self.audit_webhook_batch_max_size.max(1),
                max_wait: self.audit_webhook_batch_max_wait,
                ..WebhookOptions::new(hook)
            });
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn wrong(path: &Path) -> impl Fn(String) -> anyhow::Error {
    move |why| anyhow!("{}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        access: AccessFlags,
    }

    #[tokio::test]
    async fn flags_become_options_and_mistakes_name_their_file() {
        let directory = tempfile::tempdir().expect("directory");
        let tokens = directory.path().join("tokens.csv");
        std::fs::write(&tokens, "secret,jane,1\n").expect("written");
        let tokens = tokens.to_str().expect("text");
        let line = [
            "skiff",
            "--token-auth-file",
            tokens,
            "--anonymous-auth=false",
            "--max-requests-inflight",
            "7",
        ];
        let mut options = ApiServerOptions::default();
        Line::parse_from(line).access.apply(&mut options).await.expect("applied");
        assert_eq!(options.authentication.static_tokens[0].user.name, "jane");
        assert_eq!((options.flow.max_reads, options.flow.max_writes), (7, 200));
        assert!(options.authentication.configuration.anonymous.is_some());
        let issuer = [
            "--oidc-issuer-url",
            "https://x",
            "--oidc-client-id",
            "skiff",
            "--oidc-groups-claim",
            "roles",
        ];
        let line = Line::parse_from(std::iter::once("skiff").chain(issuer)).access;
        let text = line.oidc.configuration().expect("read").expect("said");
        assert!(text.contains("\"prefix\":\"https://x#\"") && text.contains("roles"), "{text}");
        line.apply(&mut options).await.expect("applied");
        let line = ["skiff", "--service-account-issuer", "https://own", "--api-audiences", "a,b"];
        Line::parse_from(line).access.apply(&mut options).await.expect("applied");
        assert_eq!((options.issuer.as_str(), options.audiences.len()), ("https://own", 2));
        let line = ["skiff", "--audit-policy-file", tokens];
        let error = Line::parse_from(line).access.apply(&mut options).await.expect_err("no policy");
        assert!(error.to_string().contains("tokens.csv"), "{error}");
    }
}
