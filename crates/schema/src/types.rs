//! The graph of built-in types: fields, their types and the facts lists, maps and patches need.
//!
//! Owns static data compiled in from the fact tables and its lookup. Refuses to know values.

/// A built-in type with its fields, by its full OpenAPI name.
#[derive(Debug)]
pub struct Type {
    /// Such as `io.k8s.api.apps.v1.DeploymentSpec`.
    pub name: &'static str,
    /// Position in [`all`].
    pub id: u16,
    /// Server-side apply owns the whole object at once.
    pub atomic: bool,
    /// Set when the type is a value (a quantity, a time, arbitrary JSON) and not an object with fields.
    pub scalar: Option<Of>,
    /// Which fields exclude one another, as the fact table spells it.
    pub union: Option<&'static str>,
    /// Sorted by name.
    pub fields: &'static [Field],
}

impl Type {
    /// The field of that JSON name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let at = self.fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        Some(&self.fields[at])
    }

    /// The last part of the name, which is the Go type's name.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// One field of a [`Type`].
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub of: Of,
    /// The name of the type of its values where those are no objects but have one, such as `Quantity`'s.
    pub value: &'static str,
    /// Must be there.
    pub required: bool,
    /// How a list's items are told apart.
    pub list: ListType,
    /// Whether that is stated; what is not is one value.
    pub stated: bool,
    /// Server-side apply owns the map or object in this field at once.
    pub atomic: bool,
    /// It owns the object's fields one by one although the object's type says otherwise.
    pub granular: bool,
    /// How strategic merge patch treats it.
    pub patch: Patch,
    /// The documented default as JSON text. `""`, `0`, `false` and `{}` merely state Go's zero value.
    pub default: Option<&'static str>,
}

/// The strategy of a field in a strategic merge patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Lists are merged by `key`, or as sets if there is none, instead of being replaced.
    pub merge: bool,
    /// The value is replaced even though it is an object.
    pub replace: bool,
    /// The patch says in `$retainKeys` which keys of the object survive.
    pub retain_keys: bool,
    /// The field that identifies an item of a merged list.
    pub key: Option<&'static str>,
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// They are not: the list is one value.
    Atomic,
    /// By value.
    Set,
    /// By the values of these fields.
    Map(&'static [&'static str]),
}

/// The type of a field, item or map value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Of {
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
    /// A signed 32-bit number.
    Int32,
    /// A signed 64-bit number.
    Int64,
    /// A floating-point number.
    Double,
    /// Base64 text.
    Bytes,
    /// A quantity such as `100m`, kept in canonical form.
    Quantity,
    /// A 32-bit number, or text.
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Arbitrary JSON.
    Any,
    /// The type of that id.
    Object(u16),
    /// A list.
    List(&'static Of),
    /// A map with string keys.
    Map(&'static Of),
}

impl Of {
    /// The type of objects of this type; for a list or map, of its values.
    #[must_use]
    pub fn object(&self) -> Option<&'static Type> {
        match self {
            Self::Object(id) => Some(by_id(*id)),
            Self::List(of) | Self::Map(of) => of.object(),
            _ => None,
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/graph.rs"));
include!(concat!(env!("OUT_DIR"), "/selectable.rs"));

/// Every built-in type, sorted by name.
#[must_use]
pub fn all() -> &'static [Type] {
    &TYPES
}

/// The type of that id.
///
/// # Panics
/// When the id is none that [`Type::id`] or [`Of::Object`] gave out.
#[must_use]
pub fn by_id(id: u16) -> &'static Type {
    &TYPES[usize::from(id)]
}

/// The type of that full name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Type> {
    let at = TYPES.binary_search_by(|one| one.name.cmp(name)).ok()?;
    Some(&TYPES[at])
}

/// The type of objects of a built-in kind; the core group is `""`.
#[must_use]
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    // Option types are registered in every group and listed in none.
    let (group, version) = if kind.ends_with("Options") { ("", "v1") } else { (group, version) };
    let wanted = (group, version, kind);
    let found =
        KINDS.binary_search_by(|(group, version, kind, _)| (*group, *version, *kind).cmp(&wanted));
    match found {
        Ok(at) => Some(by_id(KINDS[at].3)),
        Err(_) if kind == "DeleteOptions" => {
            by_name("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        }
        Err(_) => None,
    }
}

/// The group, version and kind of a type of objects, if it has exactly one.
#[must_use]
pub fn kind_of(of: &Type) -> Option<(&'static str, &'static str, &'static str)> {
    let mut found = KINDS.iter().filter(|row| row.3 == of.id);
    let first = found.next()?;
    found.next().is_none().then_some((first.0, first.1, first.2))
}

/// The fields that a field selector may name for a kind, `metadata.name` and `metadata.namespace` included.
pub fn selectable_fields(
    group: &str,
    version: &str,
    kind: &str,
) -> impl Iterator<Item = &'static str> {
    let key = if group.is_empty() {
        format!("{version}/{kind}")
    } else {
        format!("{group}/{version}/{kind}")
    };
    // events.k8s.io serves the core group's events.
    let key = if key == "events.k8s.io/v1/Event" { "v1/Event".to_owned() } else { key };
    SELECTABLE
        .iter()
        .filter(move |row| row.0 == "*" || row.0 == key)
        .flat_map(|row| row.1.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_types_by_name_and_kind() {
        let deployment = by_kind("apps", "v1", "Deployment").expect("a built-in kind");
        assert_eq!(deployment.name, "io.k8s.api.apps.v1.Deployment");
        assert_eq!(kind_of(deployment), Some(("apps", "v1", "Deployment")));
        let spec = deployment.field("spec").and_then(|field| field.of.object()).expect("spec");
        assert_eq!(spec.field("replicas").map(|field| field.of), Some(Of::Int32));
        assert!(spec.field("strategy").is_some_and(|field| field.patch.retain_keys));
        assert!(by_kind("apps", "v1", "Deploymint").is_none());
        assert!(by_kind("", "v1", "DeleteOptions").is_some());
    }

    #[test]
    fn knows_merge_keys_and_scalars() {
        let pod = by_name("io.k8s.api.core.v1.PodSpec").expect("PodSpec");
        let containers = pod.field("containers").expect("containers");
        assert_eq!(containers.patch.key, Some("name"));
        assert_eq!(containers.list, ListType::Map(&["name"]));
        let resources = by_name("io.k8s.api.core.v1.ResourceRequirements").expect("resources");
        assert_eq!(resources.field("limits").map(|field| field.of), Some(Of::Map(&Of::Quantity)));
    }

    #[test]
    fn lists_selectable_fields() {
        let fields: Vec<_> = selectable_fields("", "v1", "Namespace").collect();
        assert_eq!(fields, ["metadata.name", "metadata.namespace", "status.phase"]);
    }
}
