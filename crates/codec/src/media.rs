//! Content negotiation: which encoding and form a client wants, and which its body has.

use meta::Status;

/// What is served, as errors list it.
pub const SERVED: &[&str] = &["application/json", "application/yaml"];

/// The media types of patches.
pub const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

impl Encoding {
    /// The `Content-Type` of a response.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// The version of `meta.k8s.io` in which a form was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`.
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1Beta1,
}

impl MetaVersion {
    /// The `apiVersion` of the response.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The form in which objects are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Object,
    /// As `PartialObjectMetadata` or a list of them.
    Partial(MetaVersion),
    /// As a `Table`.
    Table(MetaVersion),
}

/// What an `Accept` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// How to write the bytes.
    pub encoding: Encoding,
    /// What to write.
    pub form: Form,
    /// Indented, by a `pretty` parameter.
    pub pretty: bool,
}

const PLAIN: Accepted = Accepted { encoding: Encoding::Json, form: Form::Object, pretty: false };

/// Chooses among what a client accepts, in its order of preference; a missing header accepts JSON. Protobuf is
/// passed over for whatever else the client lists.
///
/// # Errors
/// 406 when nothing of it is served; a watch is served as JSON only.
pub fn accept(header: Option<&str>, watch: bool) -> Result<Accepted, Status> {
    let header = header.unwrap_or_default().trim();
    if header.is_empty() {
        return Ok(PLAIN);
    }
    let mut clauses: Vec<(u32, &str)> =
        header.split(',').map(|clause| (quality(clause), clause)).collect();
    clauses.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    clauses
        .into_iter()
        .find_map(|(quality, clause)| if quality == 0 { None } else { accepted(clause, watch) })
        .ok_or_else(|| Status::not_acceptable(SERVED))
}

/// The weight of a clause in thousandths.
fn quality(clause: &str) -> u32 {
    let given = parameters(clause).find_map(|(name, value)| (name == "q").then_some(value));
    let Some(weight) = given.and_then(|text| text.parse::<f64>().ok()) else { return 1000 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1000"
    )]
    let thousandths = (weight.clamp(0.0, 1.0) * 1000.0) as u32;
    thousandths
}

fn parameters(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        Some((name.trim(), value.trim().trim_matches('"')))
    })
}

fn accepted(clause: &str, watch: bool) -> Option<Accepted> {
    let encoding = match clause.split(';').next().unwrap_or_default().trim() {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" if !watch => Encoding::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version, mut pretty) = ("", "", "", false);
    for (name, value) in parameters(clause) {
        match name {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            "pretty" => pretty = value == "1" || value == "true",
            "stream" if !(watch && value == "watch") => return None,
            _ => {}
        }
    }
    if kind.is_empty() {
        return Some(Accepted { encoding, form: Form::Object, pretty });
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => MetaVersion::V1,
        ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
        _ => return None,
    };
    let form = match kind {
        "Table" => Form::Table(version),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Partial(version),
        _ => return None,
    };
    Some(Accepted { encoding, form, pretty })
}

/// The format of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON.
    Json,
    /// YAML, to be turned into JSON by [`crate::yaml::to_json`].
    Yaml,
    /// Protobuf, to be turned into JSON by [`crate::protobuf::to_json`].
    Protobuf,
}

/// Reads the `Content-Type` of a body that holds an object; a missing one means JSON.
///
/// # Errors
/// 415 for anything else.
pub fn body_format(header: Option<&str>) -> Result<BodyFormat, Status> {
    match essence(header).as_str() {
        "" | "application/json" | "*/*" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyFormat::Protobuf),
        _ => Err(Status::unsupported_media_type(SERVED)),
    }
}

/// Reads the `Content-Type` of a patch: one of [`PATCHES`].
///
/// # Errors
/// 415 for anything else.
pub fn patch_type(header: Option<&str>) -> Result<&'static str, Status> {
    let found = essence(header);
    PATCHES
        .iter()
        .find(|patch| **patch == found)
        .copied()
        .ok_or_else(|| Status::unsupported_media_type(PATCHES))
}

/// A media type without parameters, in lower case.
fn essence(header: Option<&str>) -> String {
    header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, encoding: Encoding, form: Form) {
        let accepted = accept(Some(header), false).expect("something acceptable");
        assert_eq!((accepted.encoding, accepted.form), (encoding, form), "{header}");
    }

    #[test]
    fn chooses_what_the_client_prefers() {
        let table = Form::Table(MetaVersion::V1);
        check("", Encoding::Json, Form::Object);
        check("*/*", Encoding::Json, Form::Object);
        check("application/yaml", Encoding::Yaml, Form::Object);
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Encoding::Json,
            table,
        );
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            Encoding::Json,
            Form::Table(MetaVersion::V1Beta1),
        );
        check(
            "application/json;as=Nothing;v=v1;g=meta.k8s.io, application/json",
            Encoding::Json,
            Form::Object,
        );
        check("application/vnd.kubernetes.protobuf,application/json", Encoding::Json, Form::Object);
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Encoding::Json,
            Form::Partial(MetaVersion::V1),
        );
        check("application/yaml;q=0.5,application/json;q=0.9", Encoding::Json, Form::Object);
    }

    #[test]
    fn refuses_what_is_not_served() {
        let refused =
            |header, watch| accept(Some(header), watch).expect_err("nothing acceptable").code;
        assert_eq!(refused("application/vnd.kubernetes.protobuf", false), 406);
        assert_eq!(refused("text/html", false), 406);
        assert_eq!(refused("application/yaml", true), 406);
        assert_eq!(refused("application/json;q=0", false), 406);
        assert!(accept(Some("application/json;stream=watch"), true).is_ok());
        assert_eq!(body_format(Some("text/plain")).expect_err("no object").code, 415);
    }

    #[test]
    fn reads_content_types() {
        assert_eq!(body_format(None), Ok(BodyFormat::Json));
        assert_eq!(body_format(Some("application/json; charset=utf-8")), Ok(BodyFormat::Json));
        assert_eq!(body_format(Some("Application/YAML")), Ok(BodyFormat::Yaml));
        assert_eq!(
            patch_type(Some("application/merge-patch+json")),
            Ok("application/merge-patch+json")
        );
        assert_eq!(patch_type(Some("application/json")).expect_err("no patch").code, 415);
    }
}
