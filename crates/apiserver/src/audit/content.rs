//! Bodies as audit notes them: bounded copies, as JSON, without managed fields if so wished.

use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::StreamExt;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, BodyStream};
use serde_json::Value;
use serve::Body;

/// The largest body that is noted, in bytes.
const MOST: usize = 4 * 1024 * 1024;

/// A body as JSON, whatever syntax it came in; none if it is none, or too large.
pub(super) fn json(headers: &HeaderMap, body: &Bytes) -> Option<Value> {
    if body.is_empty() || body.len() > MOST {
        return None;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plain = match text(header::CONTENT_ENCODING) {
        "gzip" => {
            let mut plain = Vec::new();
            let limit = MOST as u64 + 1;
            GzDecoder::new(body.as_ref()).take(limit).read_to_end(&mut plain).ok()?;
            if plain.len() > MOST {
                return None;
            }
            Bytes::from(plain)
        }
        _ => body.clone(),
    };
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let json = match media {
        "application/vnd.kubernetes.protobuf" => codec::protobuf::to_json(&plain).ok()?,
        media if media.ends_with("yaml") => codec::yaml::to_json(&plain).ok()?,
        _ => return serde_json::from_slice(&plain).ok(),
    };
    serde_json::from_slice(&json).ok()
}

/// Copies a body that is sent on; no copy of one that is too large.
pub(super) async fn copy(mut body: Body) -> (Body, Option<Bytes>) {
    let (mut kept, mut size) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.map(|frame| frame.into_data().unwrap_or_default());
        let ends = data.is_err();
        size += data.as_ref().map_or(0, Bytes::len);
        kept.push(data);
        if ends || size > MOST {
            let rest = BodyStream::new(body)
                .map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()));
            return (Body::stream(futures::stream::iter(kept).chain(rest)), None);
        }
    }
    let mut whole = BytesMut::with_capacity(size);
    kept.iter().flatten().for_each(|data| whole.extend_from_slice(data));
    let whole = whole.freeze();
    (Body::full(whole.clone()), Some(whole))
}

/// Takes managed fields out of an object, the items of a list, the rows of a table. What is none of these, such as a
/// patch, stays as it is.
pub(super) fn omit_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for list in ["items", "rows"] {
        for item in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let item = if list == "rows" { item.get_mut("object") } else { Some(item) };
            let metadata = item.and_then(|item| item.get_mut("metadata")?.as_object_mut());
            metadata.map(|metadata| metadata.remove("managedFields"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn large_bodies_go_on_without_a_copy() {
        let chunk = Bytes::from(vec![b' '; 1 << 20]);
        let stream = |chunks| {
            let chunk = chunk.clone();
            Body::stream(futures::stream::iter(
                (0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone())),
            ))
        };
        let (body, copy) = copy(stream(3)).await;
        assert_eq!(copy.map(|copy| copy.len()), Some(3 << 20));
        assert_eq!(body.read(1 << 30).await.expect("whole").len(), 3 << 20);
        let (body, copy) = self::copy(stream(9)).await;
        assert!(copy.is_none());
        assert_eq!(body.read(1 << 30).await.expect("whole").len(), 9 << 20);
    }

    #[test]
    fn managed_fields_go_wherever_they_are() {
        let object = || json!({"metadata": {"name": "a", "managedFields": [1]}});
        let mut one = object();
        let mut list = json!({"metadata": {}, "items": [object(), object()]});
        let mut table = json!({"rows": [{"object": object()}, {"object": null}]});
        for value in [&mut one, &mut list, &mut table] {
            omit_managed_fields(value);
            assert!(!value.to_string().contains("managedFields"), "{value}");
        }
        assert_eq!(one, json!({"metadata": {"name": "a"}}));
        let patch = json!([{"op": "remove", "path": "/metadata/managedFields"}]);
        for other in [patch, json!("text"), json!({"rows": [1], "items": ["a"]}), json!(null)] {
            let mut left = other.clone();
            omit_managed_fields(&mut left);
            assert_eq!(left, other);
        }
    }

    #[test]
    fn every_syntax_becomes_json() {
        let read = |media: &str, text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, media.parse().expect("header"));
            json(&headers, &Bytes::from(text.to_owned()))
        };
        assert_eq!(read("application/yaml", "a: 1"), Some(json!({"a": 1})));
        assert_eq!(read("application/json; charset=utf-8", "{\"a\":1}"), Some(json!({"a": 1})));
        assert_eq!(read("application/json", "{"), None);
        assert_eq!(read("text/plain", ""), None);
    }
}
