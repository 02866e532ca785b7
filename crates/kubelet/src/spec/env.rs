//! A container's environment: Services, envFrom, env with references and expansion, in upstream's order of
//! precedence. Knows nothing of how ConfigMaps and Secrets are fetched.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as api;

use super::{expand::expand, fields};

/// What the environment is made from beside the pod.
pub(crate) trait Lookup {
    /// The ConfigMap's text (binary data is for volumes only); `None` when there is no such object.
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
    /// The Secret's data.
    fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
}

/// The environment of a container, sorted by name only where order has no meaning: variables of `env` come in the
/// order they are written.
///
/// # Errors
/// The sentence that Kubernetes shows with `CreateContainerConfigError`.
pub(crate) fn environment(
    pod: &api::Pod,
    container: &api::Container,
    services: BTreeMap<String, String>,
    lookup: &impl Lookup,
    facts: &fields::Facts,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut from = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        env_from(source, lookup, &mut from)?;
    }
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut ordered: Vec<String> = Vec::new();
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => {
                match value_from(pod, container, namespace, source, lookup, facts)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            (value, None) => expand(value.as_deref().unwrap_or_default(), |name| {
                known.get(name).or_else(|| from.get(name)).or_else(|| services.get(name)).cloned()
            }),
        };
        if known.insert(variable.name.clone(), value).is_none() {
            ordered.push(variable.name.clone());
        }
    }
    let mut result: Vec<(String, String)> = ordered
        .into_iter()
        .filter_map(|name| known.get(&name).cloned().map(|value| (name, value)))
        .collect();
    for (name, value) in from.into_iter().chain(services) {
        if known.insert(name.clone(), value.clone()).is_none() {
            result.push((name, value));
        }
    }
    Ok(result)
}

fn env_from(
    source: &api::EnvFromSource,
    lookup: &impl Lookup,
    into: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let (data, missing) = if let Some(reference) = &source.config_map_ref {
        let missing =
            (!reference.optional.unwrap_or(false)).then(|| not_found("configmap", &reference.name));
        (lookup.config_map(&reference.name), missing)
    } else if let Some(reference) = &source.secret_ref {
        let missing =
            (!reference.optional.unwrap_or(false)).then(|| not_found("secret", &reference.name));
        (lookup.secret(&reference.name), missing)
    } else {
        return Ok(());
    };
    match (data, missing) {
        (Some(data), _) => {
            for (key, value) in data {
                into.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
            }
            Ok(())
        }
        (None, Some(missing)) => Err(missing),
        (None, None) => Ok(()),
    }
}

/// The value of a reference; `None` leaves the variable out.
fn value_from(
    pod: &api::Pod,
    container: &api::Container,
    namespace: &str,
    source: &api::EnvVarSource,
    lookup: &impl Lookup,
    facts: &fields::Facts,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return fields::pod_field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return fields::resource_field(pod, resource, Some(&container.name), facts).map(Some);
    }
    let (kind, name, key, optional, data) = if let Some(r) = &source.config_map_key_ref {
        ("ConfigMap", &r.name, &r.key, r.optional, lookup.config_map(&r.name))
    } else if let Some(r) = &source.secret_key_ref {
        ("Secret", &r.name, &r.key, r.optional, lookup.secret(&r.name))
    } else {
        return Ok(Some(String::new()));
    };
    let optional = optional.unwrap_or(false);
    match data {
        None if optional => Ok(None),
        None => Err(not_found(&kind.to_lowercase(), name)),
        Some(data) => match data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
        },
    }
}

fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} {name:?} not found")
}

/// Replaces `$(NAME)` in a command or its arguments.
pub(super) fn expand_all(words: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    words.into_iter().flatten().map(|word| expand(word, lookup)).collect()
}

/// Replaces `$(NAME)` in a `subPathExpr`.
///
/// # Errors
/// When a name is unknown: a path must not depend on what is missing.
pub(crate) fn expand_path(path: &str, env: &[(String, String)]) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(path, |name| {
        let value = env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| format!("missing value for {name:?}"));
        }
        value
    });
    missing.into_inner().map_or(Ok(expanded), Err)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixed;

    impl Lookup for Fixed {
        fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
            (name == "cm").then(|| {
                BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())])
            })
        }

        fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
            (name == "s").then(|| BTreeMap::from([("token".to_owned(), b"t".to_vec())]))
        }
    }

    fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container]}});
        let pod: api::Pod = serde_json::from_value(pod).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let services = BTreeMap::from([
            ("SVC".to_owned(), "10.0.0.1".to_owned()),
            ("a".to_owned(), "0".to_owned()),
        ]);
        environment(&pod, &container, services, &Fixed, &fields::Facts::default())
    }

    #[test]
    fn precedence_and_expansion() {
        let env = run(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}}], "env": [
            {"name": "X", "value": "$(SVC)-$(b)-$(LATER)"},
            {"name": "b", "value": "own"},
            {"name": "Y", "value": "$(X)/$(b)"},
            {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}}]}))
        .unwrap();
        let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(get("X"), Some("10.0.0.1-2-$(LATER)"));
        assert_eq!(get("Y"), Some("10.0.0.1-2-$(LATER)/own"));
        assert_eq!(
            (get("a"), get("b"), get("T"), get("N"), get("O")),
            (Some("1"), Some("own"), Some("t"), Some("p"), None)
        );
    }

    #[test]
    fn paths_need_every_name() {
        let env = [("A".to_owned(), "a".to_owned())];
        assert_eq!(expand_path("x/$(A)", &env), Ok("x/a".to_owned()));
        assert_eq!(expand_path("$(A)/$(B)", &env), Err("missing value for \"B\"".to_owned()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = json!({"name": "c", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z"}}}]});
        assert_eq!(run(key).unwrap_err(), "couldn't find key z in ConfigMap n/cm");
        let object = json!({"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "q", "key": "z"}}}]});
        assert_eq!(run(object).unwrap_err(), "secret \"q\" not found");
        let from = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "q"}}]});
        assert_eq!(run(from).unwrap_err(), "configmap \"q\" not found");
    }
}
