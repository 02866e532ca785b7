//! The audit log: one line of JSON for each answered request, metadata only.
//!
//! Off unless a file is named. Writing never holds up a request: when the disk cannot keep up, lines are dropped
//! and counted. Refuses to know what requests mean.

use std::{io, path::Path};

use registry::UserInfo;
use serde_json::{Value, json};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncWriteExt, BufWriter},
    sync::mpsc,
};

use crate::request::RequestInfo;

/// Lines that may wait for the disk.
const WAITING: usize = 8192;

/// Where answered requests are noted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit(Option<mpsc::Sender<String>>);

/// What is noted about a request.
pub(crate) struct Entry<'a> {
    pub(crate) id: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) info: &'a RequestInfo,
    pub(crate) user: &'a UserInfo,
    pub(crate) impersonated: Option<&'a UserInfo>,
    pub(crate) address: Option<std::net::SocketAddr>,
    pub(crate) agent: &'a str,
    pub(crate) code: u16,
    pub(crate) received: jiff::Timestamp,
}

impl Audit {
    /// A log in `path`, appended to, and the task that writes it; the task ends when every log handle is gone.
    pub(crate) async fn open(path: &Path) -> io::Result<(Self, impl Future<Output = ()> + use<>)> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).await?;
        let (sender, lines) = mpsc::channel(WAITING);
        Ok((Self(Some(sender)), write(file, lines)))
    }

    /// Whether anything is noted at all.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes a request.
    pub(crate) fn note(&self, entry: &Entry<'_>) {
        if let Some(lines) = &self.0
            && lines.try_send(line(entry)).is_err()
        {
            tracing::warn!(audit_id = entry.id, "audit line dropped: the disk cannot keep up");
        }
    }
}

fn line(entry: &Entry<'_>) -> String {
    let user = |user: &UserInfo| {
        let mut shown = json!({"username": user.name, "groups": user.groups});
        if !user.uid.is_empty() {
            shown["uid"] = user.uid.as_str().into();
        }
        if !user.extra.is_empty() {
            shown["extra"] = json!(user.extra);
        }
        shown
    };
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": entry.id,
        "stage": "ResponseComplete", "requestURI": entry.uri, "verb": entry.info.verb(),
        "user": user(entry.user), "userAgent": entry.agent,
        "responseStatus": {"metadata": {}, "code": entry.code},
        "requestReceivedTimestamp": meta::time::micros(entry.received),
        "stageTimestamp": meta::time::micros(jiff::Timestamp::now())
    });
    if let Some(impersonated) = entry.impersonated {
        event["impersonatedUser"] = user(impersonated);
    }
    if let Some(address) = entry.address {
        event["sourceIPs"] = json!([address.ip().to_string()]);
    }
    if entry.info.is_resource() {
        event["objectRef"] = reference(entry.info);
    }
    let mut line = event.to_string();
    line.push('\n');
    line
}

fn reference(info: &RequestInfo) -> Value {
    let fields = [
        ("resource", info.resource()),
        ("namespace", info.namespace()),
        ("name", info.authorized_name()),
        ("apiGroup", info.group()),
        ("apiVersion", info.version()),
        ("subresource", info.subresource()),
    ];
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn write(file: File, mut lines: mpsc::Receiver<String>) {
    let mut out = BufWriter::new(file);
    while let Some(line) = lines.recv().await {
        let mut outcome = out.write_all(line.as_bytes()).await;
        while outcome.is_ok()
            && let Ok(line) = lines.try_recv()
        {
            outcome = out.write_all(line.as_bytes()).await;
        }
        if let Err(error) = outcome.and(out.flush().await) {
            tracing::error!(%error, "audit log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity, request::Query};
    use http::Method;

    #[tokio::test]
    async fn requests_become_lines() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.log");
        let (audit, writer) = Audit::open(&path).await.expect("opens");
        let info =
            RequestInfo::parse(&Method::GET, "/api/v1/namespaces/d/pods/p", &Query::default());
        let user = identity::authenticated("jane", ["team"]);
        audit.note(&Entry {
            id: "1",
            uri: "/api/v1/namespaces/d/pods/p",
            info: &info.expect("parses"),
            user: &user,
            impersonated: None,
            address: None,
            agent: "test",
            code: 200,
            received: jiff::Timestamp::UNIX_EPOCH,
        });
        drop(audit);
        writer.await;
        let text = std::fs::read_to_string(&path).expect("written");
        let event: Value = serde_json::from_str(text.trim()).expect("JSON");
        assert_eq!(event["objectRef"]["name"], "p");
        assert_eq!(event["user"]["username"], "jane");
        assert_eq!(event["responseStatus"]["code"], 200);
    }
}
