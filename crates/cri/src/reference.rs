//! Image references: parsing, checking and normalising (distribution's reference grammar). Knows nothing of
//! registries.

use std::fmt;

/// Longest repository name, domain included (distribution specification).
const MAX_NAME: usize = 255;

/// Why a name is no image reference. The text is what Kubernetes shows with reason `InvalidImageName`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {image:?}: {problem}")]
pub struct InvalidReference {
    image: String,
    problem: &'static str,
}

/// A normalised image reference: domain and repository always, tag `latest` when neither tag nor digest is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageReference {
    /// Parses what a user writes: `nginx`, `quay.io/a/b:1.2`, `localhost:5000/x@sha256:…`.
    pub fn parse(image: &str) -> Result<Self, InvalidReference> {
        let fail = |problem| InvalidReference { image: image.to_owned(), problem };
        let (rest, digest) = match image.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(fail("invalid reference format")),
            None => (image, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[after_slash..].rfind(':') {
            Some(colon) => {
                let (name, tag) = rest.split_at(after_slash + colon);
                (name, Some(tag[1..].to_owned()))
            }
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("invalid reference format"));
        }
        if name.len() == 64
            && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(fail(
                "invalid repository name, cannot specify 64-byte hexadecimal strings",
            ));
        }
        let (domain, path) = split_domain(name);
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail("invalid reference format: repository name must be lowercase"));
        }
        if !is_domain(&domain) || path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(fail("invalid reference format"));
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(fail("repository name must not be more than 255 characters"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { domain, path, tag, digest })
    }

    /// Registry host, with port if any: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.path
    }

    /// The tag, `latest` if the user gave neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, such as `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the user wrote, with `:latest` appended when it has neither tag nor digest. This is the name Kubernetes
    /// gives to the runtime.
    pub fn with_default_tag(image: &str) -> Result<String, InvalidReference> {
        let parsed = Self::parse(image)?;
        let bare = parsed.digest.is_none()
            && parsed.tag.as_deref() == Some("latest")
            && !image.rsplit('/').next().unwrap_or(image).contains(':');
        Ok(if bare { format!("{image}:latest") } else { image.to_owned() })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Splits the registry host off, applying Docker Hub's defaults.
fn split_domain(name: &str) -> (String, String) {
    let first = name.split_once('/').filter(|(host, _)| {
        host.contains(['.', ':'])
            || *host == "localhost"
            || host.bytes().any(|b| b.is_ascii_uppercase())
    });
    match first {
        None | Some(("index.docker.io" | "docker.io", _)) => {
            let rest = first.map_or(name, |(_, rest)| rest);
            let path = if rest.contains('/') { rest.to_owned() } else { format!("library/{rest}") };
            ("docker.io".to_owned(), path)
        }
        Some((host, rest)) => (host.to_owned(), rest.to_owned()),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !domain.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return port_ok && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label_ok = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port_ok && host.split('.').all(label_ok)
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or dashes.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric)
        || !bytes.last().copied().is_some_and(alphanumeric)
    {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn normalises() {
        for (given, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("quay.io/a/b__c--d.e", "quay.io/a/b__c--d.e:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ] {
            assert_eq!(ImageReference::parse(given).unwrap().to_string(), expected);
        }
        let pinned = format!("quay.io/a@{DIGEST}");
        assert_eq!(ImageReference::parse(&pinned).unwrap().to_string(), pinned);
        assert_eq!(ImageReference::parse(&pinned).unwrap().tag(), None);
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            "a/UPPER",
            "a//b",
            "a/b:",
            "a b",
            "x@sha256:12",
            "-x",
            "x/",
            "a..b/c:tag!",
            "x:ta g",
        ] {
            assert!(ImageReference::parse(bad).is_err(), "{bad:?} was accepted");
        }
        let message = ImageReference::parse("Not Valid").unwrap_err().to_string();
        assert!(
            message
                .starts_with("couldn't parse image name \"Not Valid\": invalid reference format"),
            "{message}"
        );
    }

    #[test]
    fn default_tag_keeps_the_users_words() {
        let named = |image| ImageReference::with_default_tag(image).unwrap();
        assert_eq!(named("nginx"), "nginx:latest");
        assert_eq!(named("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(named("nginx:1"), "nginx:1");
        assert_eq!(named(&format!("nginx@{DIGEST}")), format!("nginx@{DIGEST}"));
    }
}
