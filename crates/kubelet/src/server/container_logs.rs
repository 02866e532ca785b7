//! `/containerLogs/<namespace>/<pod>/<container>`: what `kubectl logs` shows.

use std::{collections::HashMap, sync::Arc};

use http::{Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serve::Body;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    containers,
    respond::{text, with_type},
};
use crate::{
    context::Context,
    logs::{self, LogRequest},
    spec::PodId,
};

/// Pieces of a log that may wait for a slow reader.
const WAITING: usize = 16;

/// Answers the request; a followed log goes on until its container ends.
pub(super) fn serve(
    context: Arc<Context>,
    request: &Request<Body>,
    namespace: &str,
    pod: &str,
    container: &str,
    shutdown: CancellationToken,
) -> Response<Body> {
    let Some(state) = containers::pod(&context, namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist"));
    };
    if !state.containers.iter().any(|c| c.name == container) {
        return text(
            StatusCode::NOT_FOUND,
            format!("container {container:?} not found in pod {pod:?}"),
        );
    }
    let query = query(request.uri().query().unwrap_or_default());
    let (wanted, previous) = match options(&query) {
        Ok(options) => options,
        Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
    };
    let log = match containers::log(&context, &state, container, previous) {
        Ok(log) => log,
        Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
    };
    let uid = PodId::of(&state.pod).uid;
    let wanted =
        LogRequest { path: log.path, follow: wanted.follow && log.running.is_some(), ..wanted };
    let (out, pieces) = mpsc::channel(WAITING);
    // Owned by the response: the reader ends when its receiver goes.
    tokio::task::spawn_blocking(move || {
        let running = || {
            let id = log.running.as_deref();
            !shutdown.is_cancelled() && id.is_some_and(|id| containers::runs(&context, &uid, id))
        };
        if let Err(error) = logs::read(&wanted, &out, running) {
            let _ = out.blocking_send(Err(error));
        }
    });
    with_type(StatusCode::OK, "text/plain", Body::stream(ReceiverStream::new(pieces)))
}

/// The query's parameters, percent-decoded; of repeated ones the first.
pub(super) fn query(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        found.entry(decode(key)).or_insert_with(|| decode(value));
    }
    found
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = bytes.get(index + 1..index + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[index], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                index += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What is wanted, and whether it is wanted of the previous container.
fn options(query: &HashMap<String, String>) -> Result<(LogRequest, bool), String> {
    let flag =
        |name: &str| query.get(name).is_some_and(|v| matches!(v.as_str(), "true" | "1" | ""));
    let number = |name: &str| match query.get(name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => {
            value.parse::<u64>().map(Some).map_err(|_| format!("invalid {name}: {value:?}"))
        }
    };
    let since = match (query.get("sinceTime").filter(|v| !v.is_empty()), number("sinceSeconds")?) {
        (Some(time), _) => {
            Some(time.parse::<Timestamp>().map_err(|_| format!("invalid sinceTime: {time:?}"))?)
        }
        (None, Some(seconds)) => {
            let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Timestamp::now().checked_sub(seconds).ok()
        }
        (None, None) => None,
    };
    let request = LogRequest {
        follow: flag("follow"),
        tail: number("tailLines")?,
        since,
        timestamps: flag("timestamps"),
        limit: number("limitBytes")?,
        stream: query.get("stream").cloned(),
        ..LogRequest::default()
    };
    Ok((request, flag("previous")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let parsed =
            query("follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z&previous=false");
        let (request, previous) = options(&parsed).unwrap();
        assert!(request.follow && !previous);
        assert_eq!(request.tail, Some(5));
        assert_eq!(request.since.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(options(&query("tailLines=x")).unwrap_err(), "invalid tailLines: \"x\"");
    }
}
