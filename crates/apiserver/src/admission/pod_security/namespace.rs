//! Namespaces under PodSecurity: their labels must make sense, and a stricter level is compared with the pods
//! that are there already.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use meta::Status;
use registry::{Attributes, Operation};
use serde_json::Value;

use super::{
    PodSecurity,
    checks::{Pod, reasons, violations},
    policy::{Level, LevelVersion, MODES, Policy},
};
use crate::admission::{each, invalid, read_all, text};

/// How many pods are looked at, and for how long.
const MOST_PODS: usize = 3000;
const MOST_TIME: Duration = Duration::from_secs(1);

impl PodSecurity {
    pub(super) fn namespace(
        &self,
        attributes: &Attributes<'_>,
        namespace: &Value,
    ) -> Result<(), Status> {
        let name = text(&namespace["metadata"], "name");
        let labels = &namespace["metadata"]["labels"];
        let (new, errors) = Policy::of(labels, &self.defaults);
        let before =
            attributes.old.map(|old| Policy::of(&old["metadata"]["labels"], &self.defaults));
        if !errors.is_empty() && before.as_ref().is_none_or(|(_, before)| *before != errors) {
            return Err(invalid(attributes, namespace, errors));
        }
        let is_exempt = self.exempt_namespaces.iter().any(|one| one == name);
        match (attributes.operation, before) {
            (Operation::Update, Some((old, _))) => {
                if !is_stricter(new.enforce, old.enforce) {
                    return Ok(());
                }
                if !is_exempt {
                    self.existing(attributes, name, new.enforce);
                    return Ok(());
                }
            }
            _ if !is_exempt => return Ok(()),
            _ => {}
        }
        if let Some(warning) = self.ignored(name, &new, labels) {
            attributes.warn(warning);
        }
        Ok(())
    }

    /// Warns of the pods that a new level would not let in.
    fn existing(&self, attributes: &Attributes<'_>, namespace: &str, enforce: LevelVersion) {
        let pods = read_all(attributes, "", "pods", Some(namespace));
        let pods = self.in_order(&pods);
        let (began, mut checked) = (Instant::now(), 0);
        let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
        for pod in pods.iter().take(MOST_PODS) {
            let wrong = violations(enforce, Pod { metadata: &pod["metadata"], spec: &pod["spec"] });
            if !wrong.is_empty() {
                let name = text(&pod["metadata"], "name");
                let known = found.entry(reasons(&wrong)).or_insert((name, 0));
                *known = (known.0.min(name), known.1 + 1);
            }
            checked += 1;
            if began.elapsed() > MOST_TIME {
                break;
            }
        }
        if checked < pods.len() {
            let all = pods.len();
            attributes.warn(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"
            ));
        }
        if !found.is_empty() {
            attributes.warn(format!(
                "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let mut told: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, count))| match count {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                _ => format!("{name} (and {} other pods): {reasons}", count - 1),
            })
            .collect();
        told.sort_unstable();
        told.into_iter().for_each(|warning| attributes.warn(warning));
    }

    /// The pods to look at: of those of one controller one first, the others last.
    fn in_order<'a>(&self, pods: &'a [Value]) -> Vec<&'a Value> {
        let mut controllers = HashSet::new();
        let mut owner = |pod: &'a Value| {
            let owners = || each(&pod["metadata"], "ownerReferences");
            let controller = owners().find(|owner| owner["controller"] == true);
            controller.is_none_or(|controller| controllers.insert(text(controller, "uid")))
        };
        let counted = pods.iter().filter(|pod| !self.is_exempt(&pod["spec"]));
        let (mut first, last): (Vec<_>, Vec<_>) = counted.partition(|pod| owner(pod));
        first.extend(last);
        first
    }

    /// Labels of an exempt namespace have no effect: what to say about it.
    fn ignored(&self, name: &str, policy: &Policy, labels: &Value) -> Option<String> {
        if policy.is_privileged() || policy.is_equivalent(&self.defaults) {
            return None;
        }
        let set = MODES.iter().zip(policy.modes()).filter(|((_, level, version), mode)| {
            mode.level != Level::Privileged
                && (!labels[*level].is_null() || !labels[*version].is_null())
        });
        let told: Vec<String> = set.map(|((mode, ..), asked)| format!("{mode}={asked}")).collect();
        Some(format!(
            "namespace \"{name}\" is exempt from Pod Security, and the policy ({}) will be ignored",
            told.join(", ")
        ))
    }
}

/// Whether pods that were let in might not be any more.
fn is_stricter(new: LevelVersion, old: LevelVersion) -> bool {
    new != old
        && new.level != Level::Privileged
        && !(new.version == old.version && new.level <= old.level)
}
