//! `skiff token`: bootstrap tokens, Secrets in `kube-system`, and the command that a machine joins by.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Endpoints, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use pki::JoinToken;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::cli::TokenAction;
use crate::cluster::ClusterInfo;
use crate::layout::Layout;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
/// The group of machines that are to become nodes, beside that of all bootstrappers.
const GROUP: &str = "system:bootstrappers:skiff:nodes";

pub(crate) fn run(layout: &Layout, action: TokenAction) -> anyhow::Result<ExitCode> {
    super::block_on(async {
        let client = client::from_kubeconfig(&layout.kubeconfig())
            .await
            .context("connect to the API server: tokens are made on a server")?;
        match action {
            TokenAction::Create { ttl, description, token_only, .. } => {
                let token = create(layout, client.clone(), ttl, description).await?;
                match token_only {
                    true => println!("{token}"),
                    false => println!("{}", command(client, &token).await?),
                }
                Ok(())
            }
            TokenAction::List => list(client).await,
            TokenAction::Delete { tokens } => delete(client, &tokens).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn create(
    layout: &Layout,
    client: kube::Client,
    ttl: Duration,
    description: Option<String>,
) -> anyhow::Result<JoinToken> {
    let path = layout.pki().join("ca.crt");
    let text = pki::read(&path)?
        .with_context(|| format!("{} is missing: tokens are made on a server", path.display()))?;
    let authority = CertificateDer::from_pem_slice(text.as_bytes())
        .ok()
        .with_context(|| format!("{} is damaged", path.display()))?;
    let token = JoinToken::generate(pki::authority_hash(&authority)?)?;
    let secret = secret(&token, ttl, description, Timestamp::now())?;
    Api::<Secret>::namespaced(client, NAMESPACE)
        .create(&PostParams::default(), &secret)
        .await
        .context("make a token")?;
    Ok(token)
}

fn secret(
    token: &JoinToken,
    ttl: Duration,
    description: Option<String>,
    now: Timestamp,
) -> anyhow::Result<Secret> {
    let mut fields = vec![
        ("token-id", token.id.clone()),
        ("token-secret", token.secret.clone()),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "true".to_owned()),
        ("auth-extra-groups", GROUP.to_owned()),
    ];
    fields.extend(description.map(|text| ("description", text)));
    if !ttl.is_zero() {
        let end = now.checked_add(ttl).context("--ttl is too long; 0 means for ever")?;
        fields.push(("expiration", end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }
    let data: BTreeMap<String, ByteString> = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
        .collect();
    let metadata =
        ObjectMeta { name: Some(format!("{PREFIX}{}", token.id)), ..ObjectMeta::default() };
    Ok(Secret { metadata, type_: Some(TYPE.to_owned()), data: Some(data), ..Secret::default() })
}

/// The command to run on the machine that is to join.
async fn command(client: kube::Client, token: &JoinToken) -> anyhow::Result<String> {
    let endpoints = Api::<Endpoints>::namespaced(client.clone(), "default");
    let known = endpoints.get_opt("kubernetes").await.context("look where the servers are")?;
    let mut servers = known.as_ref().map(urls).unwrap_or_default();
    if servers.is_empty() {
        // A server that other machines cannot reach is no endpoint.
        servers = ClusterInfo::fetch(client).await?.servers;
    }
    Ok(format!("skiff agent --server {} --token {token}", servers.join(",")))
}

/// Where the servers are that serve now.
fn urls(endpoints: &Endpoints) -> Vec<String> {
    let mut servers = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let port = subset.ports.iter().flatten().map(|port| port.port).next().unwrap_or(443);
        for address in subset.addresses.iter().flatten() {
            servers.push(match address.ip.contains(':') {
                true => format!("https://[{}]:{port}", address.ip),
                false => format!("https://{}:{port}", address.ip),
            });
        }
    }
    servers
}

async fn list(client: kube::Client) -> anyhow::Result<()> {
    let parameters = ListParams::default().fields(&format!("type={TYPE}"));
    let secrets = Api::<Secret>::namespaced(client, NAMESPACE)
        .list(&parameters)
        .await
        .context("list tokens")?;
    println!("{:8}{:26}DESCRIPTION", "ID", "EXPIRES");
    for secret in secrets {
        let field = |name: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(name));
            value.map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default()
        };
        let end = match field("expiration") {
            none if none.is_empty() => "never".to_owned(),
            end if meta::time::parse(&end).is_some_and(|end| end > Timestamp::now()) => end,
            end => format!("{end} (over)"),
        };
        println!("{:8}{end:26}{}", field("token-id"), field("description"));
    }
    Ok(())
}

async fn delete(client: kube::Client, tokens: &[String]) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client, NAMESPACE);
    for token in tokens {
        let id = token.split('.').next().unwrap_or_default();
        if id.len() != 6 {
            bail!("{token:?} is no token: it begins with six letters");
        }
        match secrets.delete(&format!("{PREFIX}{id}"), &DeleteParams::default()).await {
            Ok(_) => println!("token {id} deleted"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                bail!("there is no token {id}: `skiff token list` shows them")
            }
            Err(error) => return Err(error).with_context(|| format!("delete the token {id}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_every_server() {
        let endpoints: Endpoints = serde_json::from_value(serde_json::json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 6443}]},
            {"addresses": [{"ip": "fd00::3"}], "ports": [{"port": 7443}]},
        ]}))
        .unwrap();
        let servers = ["https://10.0.0.1:6443", "https://10.0.0.2:6443", "https://[fd00::3]:7443"];
        assert_eq!(urls(&endpoints), servers);
    }

    #[test]
    fn a_token_becomes_its_secret() {
        let token = JoinToken::generate("00".repeat(32)).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let made = secret(&token, Duration::from_secs(3600), None, now).unwrap();
        let data = made.data.unwrap();
        assert_eq!(data["expiration"].0, b"2026-01-01T01:00:00Z");
        assert_eq!(data["token-id"].0, token.id.as_bytes());
        assert_eq!(made.metadata.name.unwrap(), format!("bootstrap-token-{}", token.id));
        let forever = secret(&token, Duration::ZERO, Some("lab".into()), now).unwrap();
        let data = forever.data.unwrap();
        assert!(!data.contains_key("expiration"));
        assert_eq!(data["description"].0, b"lab");
    }
}
