//! The API server as plain HTTPS requests: curl with the administrator's certificate.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use testkit::Cluster;

/// An answer of the API server.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status code.
    pub(super) code: u16,
    /// Texts of `Warning` headers.
    pub(super) warnings: Vec<String>,
    /// The body; a string where it is not JSON.
    pub(super) body: Value,
}

impl Answer {
    /// The `message` of a `Status`.
    pub(super) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The `reason` of a `Status`.
    pub(super) fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

/// Sends one request; `content_type` is empty for none.
///
/// # Panics
/// When there is no answer.
pub(super) fn request(
    cluster: &Cluster,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Answer {
    let keys = cluster.directory().join("pki");
    let mut command = cluster.namespace().command("curl");
    command
        .args(["--silent", "--show-error", "--http1.1", "--include", "--max-time", "60"])
        .args(["--globoff", "--request", method, "--header", "Expect:"])
        .arg("--cacert")
        .arg(keys.join("ca.crt"))
        .arg("--cert")
        .arg(keys.join("admin.crt"))
        .arg("--key")
        .arg(keys.join("admin.key"));
    if !content_type.is_empty() {
        command.args(["--header", &format!("Content-Type: {content_type}")]);
        command.args(["--data-binary", "@-"]);
    }
    let mut child = command
        .arg(format!("https://127.0.0.1:6443{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start curl");
    let mut input = child.stdin.take().expect("piped");
    // The server may answer before it has read everything.
    let _ = input.write_all(body);
    drop(input);
    let output = child.wait_with_output().expect("wait for curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse(&text).unwrap_or_else(|| {
        panic!("{method} {path}: {text:?} {}", String::from_utf8_lossy(&output.stderr))
    })
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let code = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let warnings = lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| name.eq_ignore_ascii_case("warning"))
        .map(|(_, value)| value.to_owned())
        .collect();
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    Some(Answer { code, warnings, body })
}
