//! Rules of ConfigMaps and Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{FieldError, FieldPath, names};
use serde_json::{Map, Value};

use super::Hooks;
use super::at::{At, Errors};
use super::metadata::immutable;
use crate::view::{View, same};

/// How many bytes the values of one ConfigMap or Secret may have together.
const MOST_BYTES: usize = 1024 * 1024;

const FROZEN: &str = "field is immutable when `immutable` is set";

/// `v1 ConfigMap`.
pub(super) const CONFIG_MAP: Hooks = Hooks {
    validate: config_map,
    validate_update: |new, old, errors| {
        frozen(new, old, &["data", "binaryData"], errors);
        config_map(new, errors);
    },
    ..Hooks::BASE
};

/// `v1 Secret`.
pub(super) const SECRET: Hooks = Hooks {
    validate: secret,
    validate_update: |new, old, errors| {
        immutable(new.at("type"), old.at("type"), "type", errors);
        frozen(new, old, &["data"], errors);
        secret(new, errors);
    },
    ..Hooks::BASE
};

fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for field in fields {
        if !same(new.at(field), old.at(field)) {
            errors.push(FieldError::forbidden(*field, FROZEN));
        }
    }
}

/// How many bytes base64 text stands for.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn keys(data: &Map<String, Value>, path: &FieldPath, errors: &mut Errors) {
    for key in data.keys() {
        let problems = names::is_config_map_key(key);
        errors.extend(
            problems.into_iter().map(|text| FieldError::invalid(path.key(key), key.as_str(), text)),
        );
    }
}

fn config_map(map: &Value, errors: &mut Errors) {
    let (data, binary) = (map.entries("data"), map.entries("binaryData"));
    let path = FieldPath::new("data");
    keys(data, &path, errors);
    for key in data.keys().filter(|key| binary.contains_key(*key)) {
        let text = "duplicate of key present in binaryData";
        errors.push(FieldError::invalid(path.key(key), key.as_str(), text));
    }
    keys(binary, &FieldPath::new("binaryData"), errors);
    let texts: usize = data.values().map(|value| value.as_str().map_or(0, str::len)).sum();
    let bytes: usize = binary.values().map(|value| value.as_str().map_or(0, decoded_len)).sum();
    if texts + bytes > MOST_BYTES {
        errors.push(FieldError::too_long("[]", MOST_BYTES));
    }
}

fn secret(secret: &Value, errors: &mut Errors) {
    let data = secret.entries("data");
    let path = FieldPath::new("data");
    keys(data, &path, errors);
    let bytes: usize = data.values().map(|value| value.as_str().map_or(0, decoded_len)).sum();
    if bytes > MOST_BYTES {
        errors.push(FieldError::too_long(&path, MOST_BYTES));
    }
    let mut need = |key: &str| {
        if data.get(key).is_none() {
            errors.push(FieldError::required(path.key(key), ""));
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotations = At::root(secret).field("metadata").field("annotations");
            if annotations.text(NAME).is_empty() {
                errors.push(FieldError::required(annotations.path.key(NAME), ""));
            }
        }
        "kubernetes.io/dockercfg" => docker(data, &path, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(data, &path, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth"
            if !data.contains_key("username") && !data.contains_key("password") =>
        {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            errors.push(FieldError::required(path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        _ => {}
    }
}

/// The entry must hold a JSON object.
fn docker(data: &Map<String, Value>, path: &FieldPath, key: &str, errors: &mut Errors) {
    let path = path.key(key);
    let Some(text) = data.get(key).and_then(Value::as_str) else {
        return errors.push(FieldError::required(path, ""));
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        let text = crate::decode::syntax(&error, &bytes);
        errors.push(FieldError::invalid(path, "<secret contents redacted>", text));
    }
}
