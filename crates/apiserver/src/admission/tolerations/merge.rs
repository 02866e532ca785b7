//! Lists of tolerations: which of them say more than others. Pure.

use schema::view::{View, same};
use serde_json::Value;

/// Two lists as one, without what another of them says too.
pub(in crate::admission) fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let said = merged.iter().any(|known| covers(known, one))
            || all[index + 1..].iter().any(|later| !same(later, one) && covers(later, one));
        if !said {
            merged.push((*one).clone());
        }
    }
    merged
}

/// Whether each of the tolerations is covered by one that is allowed.
pub(in crate::admission) fn tolerated(tolerations: &[Value], allowed: &[Value]) -> bool {
    allowed.is_empty()
        || tolerations.iter().all(|one| allowed.iter().any(|whole| covers(whole, one)))
}

/// Whether `whole` tolerates all that `part` does.
fn covers(whole: &Value, part: &Value) -> bool {
    if same(whole, part) {
        return true;
    }
    let exists = whole.text("operator") == "Exists";
    if part.text("key") != whole.text("key") && !(whole.text("key").is_empty() && exists) {
        return false;
    }
    let effect = whole.text("effect");
    if !effect.is_empty() && part.text("effect") != effect {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = whole.int("tolerationSeconds")
        && part.int("tolerationSeconds").is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match whole.text("operator") {
        "" | "Equal" => {
            part.text("operator") == "Equal" && part.text("value") == whole.text("value")
        }
        operator => operator == "Exists",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_another_says_too_is_left_out() {
        let any = json!({"operator": "Exists"});
        let key = json!({"key": "a", "operator": "Exists"});
        let value = json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"});
        let other = json!({"key": "b", "operator": "Equal", "value": "1"});
        let check = |first: &[&Value], second: &[&Value], expected: &[&Value]| {
            let owned = |list: &[&Value]| list.iter().map(|one| (*one).clone()).collect::<Vec<_>>();
            assert_eq!(merge(&owned(first), &owned(second)), owned(expected));
        };
        check(&[&value], &[&key], &[&key]);
        check(&[&key], &[&value, &other], &[&key, &other]);
        check(&[&value, &value], &[], &[&value]);
        check(&[&other, &value], &[&any], &[&any]);
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute"});
        assert!(covers(&long, &short) && !covers(&short, &long));
        assert!(tolerated(std::slice::from_ref(&value), std::slice::from_ref(&key)));
        assert!(!tolerated(&[other], &[key]));
    }
}
