//! Sums of resources over a pod's containers, with the rules for init containers and sidecars (KEP-753).

use std::collections::BTreeMap;

use meta::Quantity;
use serde_json::{Map, Value};

use crate::view::View;

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a map of quantities; what does not parse is left out.
pub(crate) fn amounts(map: &Map<String, Value>) -> Amounts {
    map.iter()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |old| *old + *amount);
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        if total.get(name).is_none_or(|old| old < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// What a pod's containers need together of `requests` or `limits`, overhead and pod-level resources apart.
pub(crate) fn aggregate(spec: &Map<String, Value>, what: &str) -> Amounts {
    let of = |container: &Value| amounts(container.at("resources").entries(what));
    let mut total = Amounts::new();
    for container in spec.items("containers") {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.items("initContainers") {
        let mut here = of(container);
        if container.text("restartPolicy") == "Always" {
            add(&mut total, &here);
            add(&mut sidecars, &here);
            here = sidecars.clone();
        } else {
            add(&mut here, &sidecars);
        }
        raise(&mut peak, &here);
    }
    raise(&mut total, &peak);
    total
}
