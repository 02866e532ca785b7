//! Content negotiation: which encoding and form a client wants, and which its body has.

use meta::Status;

/// What is served, as errors list it.
pub const SERVED: &[&str] = &[JSON, YAML, PROTOBUF];

/// What watches are served as, as errors list it.
const STREAMED: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The media types of patches.
pub const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Encoding {
    /// Which encoding serves a client that takes any comes first.
    const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// The `Content-Type` of a response.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The `Content-Type` of a watch.
    #[must_use]
    pub fn stream_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            other => other.media_type(),
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
    /// As `PartialObjectMetadata`.
    Partial(MetaVersion),
    /// As `PartialObjectMetadataList`.
    PartialList(MetaVersion),
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

impl Accepted {
    /// JSON, as it is.
    pub const PLAIN: Self = Self { encoding: Encoding::Json, form: Form::Object, pretty: false };
}

/// What can be had where a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Whether objects have a protobuf form.
    pub protobuf: bool,
    /// Whether objects can be had in other forms than their own.
    pub forms: bool,
    /// Whether it is a watch.
    pub watch: bool,
}

impl Offer {
    /// How failures are told: a `Status` has one form.
    pub const STATUS: Self = Self { protobuf: true, forms: false, watch: false };
}

/// Chooses among what a client accepts, in its order of preference; a missing header accepts JSON.
///
/// # Errors
/// 406 when nothing of it is offered.
pub fn accept(header: Option<&str>, offer: Offer) -> Result<Accepted, Status> {
    let header = header.unwrap_or_default();
    if header.is_empty() {
        return Ok(Accepted::PLAIN);
    }
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    clauses.sort_by(Clause::order);
    let chosen = clauses.iter().find_map(|clause| {
        Encoding::ALL.into_iter().find_map(|encoding| clause.accepts(encoding, offer))
    });
    match chosen {
        None => Err(Status::not_acceptable(SERVED)),
        Some(Accepted { encoding: Encoding::Yaml, .. }) if offer.watch => {
            Err(Status::not_acceptable(STREAMED))
        }
        Some(accepted) => Ok(accepted),
    }
}

/// One media range with its parameters.
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    /// Reads one; what is no media range is passed over.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim().split(';');
        let range = parts.next().unwrap_or_default();
        let (kind, subtype) = match range.split_once('/') {
            Some((kind, subtype)) if !subtype.contains('/') => (kind.trim(), subtype.trim()),
            None if range.trim() == "*" => ("*", "*"),
            _ => return None,
        };
        let mut clause = Self { kind, subtype, quality: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                name => clause.parameters.push((name, value.trim())),
            }
        }
        Some(clause)
    }

    /// What the client prefers, then what is more specific, then what comes first.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let wild = |clause: &Self| (clause.kind == "*", clause.subtype == "*");
        other.quality.total_cmp(&self.quality).then(wild(self).cmp(&wild(other)))
    }

    fn accepts(&self, encoding: Encoding, offer: Offer) -> Option<Accepted> {
        let range = (self.kind, self.subtype);
        if encoding.media_type().split_once('/') != Some(range)
            && range != ("application", "*")
            && range != ("*", "*")
        {
            return None;
        }
        let (mut kind, mut group, mut version, mut pretty) = ("", "", "", false);
        let mut transformed = false;
        for &(name, value) in &self.parameters {
            match name {
                "as" => kind = value,
                "g" => group = value,
                "v" => version = value,
                "pretty" => pretty = value == "1",
                "stream"
                    if !value.is_empty() && (encoding == Encoding::Yaml || value != "watch") =>
                {
                    return None;
                }
                "sv" if !matches!(value, "" | "v1") => return None,
                _ => {}
            }
            transformed |= matches!(name, "as" | "g" | "v");
        }
        if !transformed {
            let served = encoding != Encoding::Protobuf || offer.protobuf;
            return served.then_some(Accepted { encoding, form: Form::Object, pretty });
        }
        let version = match (group, version) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
            _ => return None,
        };
        let form = match kind {
            "Table" if encoding != Encoding::Protobuf => Form::Table(version),
            "PartialObjectMetadata" => Form::Partial(version),
            "PartialObjectMetadataList" => Form::PartialList(version),
            _ => return None,
        };
        offer.forms.then_some(Accepted { encoding, form, pretty })
    }
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

    const GET: Offer = Offer { protobuf: true, forms: true, watch: false };
    const WATCH: Offer = Offer { watch: true, ..GET };

    #[track_caller]
    fn check(header: &str, encoding: Encoding, form: Form) {
        let accepted = accept(Some(header), GET).expect("something acceptable");
        assert_eq!((accepted.encoding, accepted.form), (encoding, form), "{header}");
    }

    #[test]
    fn chooses_what_the_client_prefers() {
        let table = Form::Table(MetaVersion::V1);
        check("", Encoding::Json, Form::Object);
        check("*/*", Encoding::Json, Form::Object);
        check("*", Encoding::Json, Form::Object);
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
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Encoding::Json,
            Form::PartialList(MetaVersion::V1),
        );
        check("application/yaml;q=0.5,application/json;q=0.9", Encoding::Json, Form::Object);
        check("*/*, application/yaml", Encoding::Yaml, Form::Object);
        check("application/json;q=0", Encoding::Json, Form::Object);
    }

    #[test]
    fn protobuf_is_served_where_it_is_asked_for() {
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            Encoding::Protobuf,
            Form::Object,
        );
        check("application/json,application/vnd.kubernetes.protobuf", Encoding::Json, Form::Object);
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            Encoding::Protobuf,
            Form::Partial(MetaVersion::V1),
        );
        // Tables have no protobuf form.
        check(
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1",
            Encoding::Json,
            Form::Table(MetaVersion::V1),
        );
        let without = Offer { protobuf: false, ..GET };
        let chosen = accept(Some("application/vnd.kubernetes.protobuf,application/json"), without);
        assert_eq!(chosen, Ok(Accepted::PLAIN));
        let stream = accept(Some("application/vnd.kubernetes.protobuf;stream=watch"), WATCH);
        assert_eq!(stream.map(|accepted| accepted.encoding), Ok(Encoding::Protobuf));
    }

    #[test]
    fn refuses_what_is_not_served() {
        let refused =
            |header, offer| accept(Some(header), offer).expect_err("nothing acceptable").message;
        let all = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        let cbor = "application/cbor";
        for header in ["text/html", cbor, "application/json;stream=other", "application/json;sv=v2"]
        {
            assert_eq!(refused(header, GET), all, "{header}");
        }
        assert_eq!(
            refused("application/yaml", WATCH),
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
        assert!(accept(Some(table), Offer::STATUS).is_err());
        assert!(accept(Some("application/json;stream=watch"), WATCH).is_ok());
        assert_eq!(body_format(Some("text/plain")).expect_err("no object").code, 415);
        assert_eq!(body_format(Some(cbor)).expect_err("no object").code, 415);
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
