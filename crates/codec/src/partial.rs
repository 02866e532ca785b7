//! `PartialObjectMetadata`: objects without anything but their metadata.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::media::MetaVersion;

/// The metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// The revision the list was read at.
    pub resource_version: String,
    /// Where the next page starts; empty on the last.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    /// How many objects are on later pages, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

/// The one part of an object that is kept.
#[derive(Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(borrow)]
    pub(crate) metadata: Option<&'a RawValue>,
}

/// Reduces an object to its metadata.
///
/// # Errors
/// When the object is no JSON.
pub fn partial(object: &[u8], version: MetaVersion) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    write_partial(&mut out, object, version)?;
    Ok(out)
}

pub(crate) fn write_partial(
    out: &mut Vec<u8>,
    object: &[u8],
    version: MetaVersion,
) -> serde_json::Result<()> {
    let head: Head<'_> = serde_json::from_slice(object)?;
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    out.extend_from_slice(head.metadata.map_or("{}", RawValue::get).as_bytes());
    out.push(b'}');
    Ok(())
}

/// Reduces the objects of a list to their metadata.
///
/// # Errors
/// When an object is no JSON.
pub fn partial_list(
    meta: &ListMeta,
    objects: impl IntoIterator<Item = impl AsRef<[u8]>>,
    version: MetaVersion,
) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"");
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    serde_json::to_writer(&mut out, meta)?;
    out.extend_from_slice(b",\"items\":[");
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_partial(&mut out, object.as_ref(), version)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_metadata_only() {
        let pod = br#"{"kind":"Pod","metadata":{"name":"a","labels":{"x":"y"}},"spec":{}}"#;
        let list = partial_list(
            &ListMeta { resource_version: "7".to_owned(), ..ListMeta::default() },
            [pod.as_slice(), b"{}"],
            MetaVersion::V1,
        );
        assert_eq!(
            String::from_utf8(list.expect("JSON")).expect("text"),
            "{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\
             \"metadata\":{\"resourceVersion\":\"7\"},\"items\":[\
             {\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\
             \"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"y\"}}},\
             {\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{}}]}"
        );
    }
}
