//! Which resources the server serves, from aggregated discovery (KEP-3352).
//!
//! Two requests, whatever the number of groups.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use kube::{api::ApiResource, core::discovery::v2::APIGroupDiscoveryList};

/// A served resource, in the preferred version of its group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// It has a number of replicas that can be read and set by itself.
    pub(crate) scales: bool,
    verbs: Vec<String>,
}

impl Served {
    /// Whether the resource supports all these verbs.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|known| known == verb))
    }
}

/// What the server serves, and the group versions whose description it could not obtain.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    pub(crate) served: Vec<Served>,
    pub(crate) stale: Vec<String>,
}

/// Asks the server what it serves.
pub(crate) async fn discover(client: &kube::Client) -> Result<Discovered, kube::Error> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    let mut discovered = Discovered::default();
    collect(core, &mut discovered);
    collect(groups, &mut discovered);
    Ok(discovered)
}

/// How long what was served stays believed, and how soon it is asked again for what was missing.
const KEPT: Duration = Duration::from_secs(30);
const MISSED: Duration = Duration::from_secs(5);

/// What the server served a moment ago, for those who ask often.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Option<(Instant, Arc<Discovered>)>>);

impl Recent {
    /// The first resource that is `wanted`, if the server serves one.
    pub(crate) async fn find(
        &self,
        client: &kube::Client,
        wanted: impl Fn(&Served) -> bool,
    ) -> Result<Option<Served>, kube::Error> {
        let find = |all: &Discovered| all.served.iter().find(|one| wanted(one)).cloned();
        let known = self.0.lock().clone();
        if let Some((asked, known)) = known {
            let found = find(&known);
            let believed = if found.is_some() { KEPT } else { MISSED };
            if asked.elapsed() < believed {
                return Ok(found);
            }
        }
        let asked = Instant::now();
        let served = Arc::new(discover(client).await?);
        *self.0.lock() = Some((asked, served.clone()));
        Ok(find(&served))
    }
}

fn collect(list: APIGroupDiscoveryList, into: &mut Discovered) {
    for group in list.items {
        let name = group.metadata.and_then(|meta| meta.name).unwrap_or_default();
        for version in group.versions {
            let number = version.version.unwrap_or_default();
            let api_version = meta::kind::api_version(&name, &number);
            if version.freshness.as_deref() == Some("Stale") {
                into.stale.push(api_version.clone());
            }
            for resource in version.resources {
                let (Some(plural), Some(kind)) =
                    (resource.resource, resource.response_kind.and_then(|kind| kind.kind))
                else {
                    continue;
                };
                let known = into
                    .served
                    .iter()
                    .any(|one| one.resource.group == name && one.resource.plural == plural);
                if known {
                    continue;
                }
                into.served.push(Served {
                    resource: ApiResource {
                        group: name.clone(),
                        version: number.clone(),
                        api_version: api_version.clone(),
                        kind,
                        plural,
                    },
                    scales: resource
                        .subresources
                        .iter()
                        .any(|sub| sub.subresource.as_deref() == Some("scale")),
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    verbs: resource.verbs,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_resource_is_taken_in_its_preferred_version() {
        let resource = |kind: &str| {
            json!({ "resource": "horizontalpodautoscalers", "scope": "Namespaced",
                "responseKind": { "kind": kind }, "verbs": ["delete", "list"] })
        };
        let list = json!({ "items": [{ "metadata": { "name": "autoscaling" }, "versions": [
            { "version": "v2", "resources": [resource("HorizontalPodAutoscaler")] },
            { "version": "v1", "freshness": "Stale", "resources": [resource("HorizontalPodAutoscaler")] },
        ] }] });
        let mut discovered = Discovered::default();
        collect(serde_json::from_value(list).expect("valid"), &mut discovered);
        let [one] = &discovered.served[..] else { panic!("{discovered:?}") };
        assert_eq!(one.resource.api_version, "autoscaling/v2");
        assert!(one.namespaced && one.can(&["delete"]) && !one.can(&["watch"]));
        assert_eq!(discovered.stale, ["autoscaling/v1"]);
    }
}
