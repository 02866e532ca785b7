//! Extended resources that claims of devices stand for: classes of devices say their names.

use std::collections::BTreeMap;

use jiff::Timestamp;
use meta::GroupResource;
use serde_json::Value;

use super::{IMPLICIT, Meter, OF_DEVICES};
use crate::amounts::Amounts;
use crate::view::View;

const OF_POD: &str = "resource.kubernetes.io/extended-resource-claim";

/// What is known around the claims of a namespace.
#[derive(Debug, Default)]
pub struct Devices {
    /// The extended resource of each class that has one.
    names: BTreeMap<String, String>,
    /// By uid, what each pod uses for which a scheduler made a claim, and the claim's name.
    pods: BTreeMap<String, (String, Amounts)>,
}

impl Devices {
    /// What classes of devices say, and pods for which there are claims.
    #[must_use]
    pub fn new(classes: &[Value], claims: &[Value], pods: &[Value], now: Timestamp) -> Self {
        let named = |class: &Value| {
            let resource = class.at("spec").text("extendedResourceName");
            (!resource.is_empty())
                .then(|| (class.at("metadata").text("name").to_owned(), resource.to_owned()))
        };
        let meter = Meter::of(&GroupResource::new("", "pods"));
        let known = |pod: &Value| {
            let uid = pod.at("metadata").text("uid");
            let said = pod.at("status").at("extendedResourceClaimStatus").text("resourceClaimName");
            // Without a word of the pod's, the first counts.
            let of_pod =
                claims.iter().filter(|claim| pod_of(claim).is_some_and(|(_, of)| of == uid));
            let key = |claim: &Value| {
                let meta = claim.at("metadata");
                (meta.text("creationTimestamp").to_owned(), meta.text("name").to_owned())
            };
            let claim = match said {
                "" => of_pod.map(key).min()?.1,
                said => said.to_owned(),
            };
            Some((uid.to_owned(), (claim, meter.as_ref()?.usage(pod, now))))
        };
        Self {
            names: classes.iter().filter_map(named).collect(),
            pods: pods.iter().filter_map(known).collect(),
        }
    }

    /// Adds what the claim uses of extended resources, beyond what is charged for its pod.
    pub(super) fn extend(&self, claim: &Value, used: &mut Amounts) {
        let charged = pod_of(claim)
            .and_then(|(_, uid)| self.pods.get(uid))
            .filter(|(name, _)| name == claim.at("metadata").text("name"));
        let mut more = Amounts::new();
        for (name, amount) in used.iter() {
            let Some(class) = name.strip_suffix(OF_DEVICES) else { continue };
            more.insert(format!("{IMPLICIT}{class}"), *amount);
            if let Some(resource) = self.names.get(class) {
                more.insert(format!("requests.{resource}"), *amount);
            }
        }
        for (name, amount) in more {
            let charged = charged.and_then(|(_, amounts)| amounts.get(&name));
            let rest = charged.map_or(amount, |charged| amount - *charged);
            if rest.signum() > 0 {
                used.insert(name, rest);
            }
        }
    }
}

/// Name and uid of the pod for which a scheduler made a claim, to give it extended resources.
#[must_use]
pub fn pod_of(claim: &Value) -> Option<(&str, &str)> {
    let meta = claim.at("metadata");
    let made = meta.at("annotations").text(OF_POD) == "true";
    let owner =
        meta.items("ownerReferences").iter().find(|owner| owner.at("controller") == true)?;
    let is_pod = owner.text("kind") == "Pod" && owner.text("apiVersion") == "v1";
    (made && is_pod).then(|| (owner.text("name"), owner.text("uid")))
}
