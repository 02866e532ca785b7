//! Counting one quota: reads it, lists what it is about, writes what that uses.

use std::collections::{BTreeMap, BTreeSet};

use client::{ErrorExt, Metadata, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, ResourceQuota},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, ListParams, ObjectList, Patch, PatchParams, Request},
};
use meta::{GroupResource, Quantity};
use parking_lot::Mutex;
use reconcile::merge_diff;
use schema::amounts::{Amounts, add};
use schema::quota::{Devices, Meter, pod_of};
use serde_json::{Value, json};

use crate::discover::{Served, discover};

/// How often a count is begun again because something was charged meanwhile.
const MOST_TRIES: usize = 10;
/// Objects asked for in one page.
const PAGE: u32 = 500;

/// Counts quotas; remembers how resources are served.
#[derive(Default)]
pub(super) struct Counter {
    served: Mutex<Vec<Served>>,
}

type Limits = BTreeMap<String, Written>;

impl Counter {
    /// Counts a quota. False if it is gone.
    ///
    /// # Errors
    /// When the server cannot be asked, or something is charged again and again meanwhile.
    pub(super) async fn recount(
        &self,
        key: &ObjectKey,
        now: Timestamp,
        client: &kube::Client,
    ) -> Result<bool, kube::Error> {
        let api: Api<ResourceQuota> = Api::namespaced(client.clone(), key.namespace());
        let mut tries = 0;
        loop {
            let Some(quota) = api.get_opt(&key.name).await? else { return Ok(false) };
            let used = self.usage(&quota, key.namespace(), now, client).await?;
            let Some(patch) = difference(&quota, &used) else { return Ok(true) };
            let params = PatchParams::default();
            match api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await {
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) if error.is_conflict() && tries < MOST_TRIES => tries += 1,
                other => return other.map(|_| true),
            }
        }
    }

    /// What is used of each limit that somebody measures.
    async fn usage(
        &self,
        quota: &ResourceQuota,
        namespace: &str,
        now: Timestamp,
        client: &kube::Client,
    ) -> Result<Amounts, kube::Error> {
        let hard = limits(quota);
        let value = serde_json::to_value(quota).unwrap_or_default();
        let mut used = Amounts::new();
        for meter in Meter::named(hard.keys().map(String::as_str)) {
            let Some(resource) = self.served(meter.resource(), client).await? else { continue };
            let counted = if meter.only_counts() {
                let scoped = !meter.in_scopes(&value, &Value::Null);
                let number = if scoped { 0 } else { number(client, namespace, &resource).await? };
                // One object stands for all.
                let one = meter.usage(&Value::Null, now);
                let number = Quantity::new(number, meta::quantity::Format::DecimalSi);
                one.into_keys().map(|name| (name, number)).collect()
            } else {
                sum(client, namespace, &resource, &meter, &value, now).await?
            };
            let measured = hard.keys().filter(|name| meter.measures(name));
            let here = |name: &String| counted.get(name).copied().unwrap_or_default();
            // Of extended resources, pods and claims of devices take together.
            add(&mut used, &measured.map(|name| (name.clone(), here(name))).collect());
        }
        Ok(used)
    }

    /// How a resource is served, if it is.
    async fn served(
        &self,
        wanted: &GroupResource,
        client: &kube::Client,
    ) -> Result<Option<ApiResource>, kube::Error> {
        let find = |served: &[Served]| {
            let is = |one: &&Served| {
                one.resource.group == wanted.group && one.resource.plural == wanted.resource
            };
            served.iter().find(is).filter(|one| one.namespaced).map(|one| one.resource.clone())
        };
        let known = find(&self.served.lock());
        if known.is_some() {
            return Ok(known);
        }
        let served = discover(client).await?.served;
        let found = find(&served);
        *self.served.lock() = served;
        Ok(found)
    }
}

fn limits(quota: &ResourceQuota) -> Limits {
    quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default()
}

/// The patch that writes limits and usage; none if they are there already.
fn difference(quota: &ResourceQuota, counted: &Amounts) -> Option<Value> {
    let hard = limits(quota);
    let status = quota.status.clone().unwrap_or_default();
    let before = status.used.clone().unwrap_or_default();
    // What nobody can measure now keeps its last count.
    let mut used: Limits = before.clone();
    used.retain(|name, _| hard.contains_key(name));
    for (name, amount) in counted {
        let same =
            |known: &Written| known.0.parse::<Quantity>().is_ok_and(|known| known == *amount);
        if !used.get(name).is_some_and(same) {
            used.insert(name.clone(), Written(amount.to_string()));
        }
    }
    if status.hard.as_ref() == Some(&hard) && status.used.as_ref() == Some(&used) {
        return None;
    }
    let old = json!({"hard": status.hard.unwrap_or_default(), "used": before});
    let mut patch =
        merge_diff(&old, &json!({"hard": hard, "used": used})).unwrap_or_else(|| json!({}));
    for part in ["hard", "used"] {
        // A list that is empty is one that was counted.
        if patch[part].is_null() {
            patch[part] = json!({});
        }
    }
    let version = &quota.metadata.resource_version;
    Some(
        json!({"metadata": {"uid": quota.metadata.uid, "resourceVersion": version}, "status": patch}),
    )
}

fn request(namespace: &str, resource: &ApiResource) -> Request {
    Request::new(DynamicObject::url_path(resource, Some(namespace)))
}

/// How many objects there are.
async fn number(
    client: &kube::Client,
    namespace: &str,
    resource: &ApiResource,
) -> Result<i64, kube::Error> {
    let asked = request(namespace, resource)
        .list_metadata(&ListParams::default().limit(1))
        .map_err(kube::Error::BuildRequest)?;
    let page: ObjectList<Metadata> = client.request(asked).await?;
    let here = i64::try_from(page.items.len()).unwrap_or(i64::MAX);
    Ok(here.saturating_add(page.metadata.remaining_item_count.unwrap_or(0)))
}

/// What all objects in the quota's scopes use together.
async fn sum(
    client: &kube::Client,
    namespace: &str,
    resource: &ApiResource,
    meter: &Meter,
    quota: &Value,
    now: Timestamp,
) -> Result<Amounts, kube::Error> {
    let (mut total, mut claims) = (Amounts::new(), Vec::new());
    walk(client, &request(namespace, resource), |object| {
        if !meter.in_scopes(quota, &object) {
            return;
        }
        match meter.is_of_devices() {
            true => claims.push(object),
            false => add(&mut total, &meter.usage(&object, now)),
        }
    })
    .await?;
    if !claims.is_empty() {
        let devices = devices(client, namespace, resource, &claims, now).await?;
        let usage = |claim| meter.usage_among(claim, now, &devices);
        claims.iter().for_each(|claim| add(&mut total, &usage(claim)));
    }
    Ok(total)
}

/// What is known around claims of devices.
async fn devices(
    client: &kube::Client,
    namespace: &str,
    resource: &ApiResource,
    claims: &[Value],
    now: Timestamp,
) -> Result<Devices, kube::Error> {
    let classes = ApiResource { plural: "deviceclasses".into(), ..resource.clone() };
    let (mut known, mut pods) = (Vec::new(), Vec::new());
    let all = Request::new(DynamicObject::url_path(&classes, None));
    walk(client, &all, |class| known.push(class)).await?;
    let uids: BTreeSet<&str> = claims.iter().filter_map(pod_of).map(|(_, uid)| uid).collect();
    if !uids.is_empty() {
        walk(client, &request(namespace, &ApiResource::erase::<Pod>(&())), |pod| {
            if pod["metadata"]["uid"].as_str().is_some_and(|uid| uids.contains(uid)) {
                pods.push(pod);
            }
        })
        .await?;
    }
    Ok(Devices::new(&known, claims, &pods, now))
}

/// Reads a collection, page by page.
async fn walk(
    client: &kube::Client,
    collection: &Request,
    mut see: impl FnMut(Value),
) -> Result<(), kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let asked = collection.list(&params).map_err(kube::Error::BuildRequest)?;
        let mut page: Value = client.request(asked).await?;
        if let Some(items) = page["items"].as_array_mut() {
            items.drain(..).for_each(&mut see);
        }
        match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token.to_owned()),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::from_yaml;

    fn check(status: &str, counted: &[(&str, &str)]) -> Option<Value> {
        let quota = from_yaml(&format!(
            "{{metadata: {{resourceVersion: '7', uid: u}}, spec: {{hard: {{pods: '5', cpu: '2'}}}}, status: {status}}}"
        ));
        let counted = counted
            .iter()
            .map(|(name, amount)| ((*name).to_owned(), amount.parse().expect("quantity")));
        difference(&quota, &counted.collect()).map(|patch| patch["status"].clone())
    }

    #[test]
    fn only_what_differs_is_written() {
        let status = "{hard: {pods: '5', cpu: '2'}, used: {pods: '1', cpu: 1000m}}";
        assert_eq!(check(status, &[("pods", "1"), ("cpu", "1")]), None);
        assert_eq!(
            check(status, &[("pods", "0"), ("cpu", "1")]),
            Some(json!({"hard": {}, "used": {"pods": "0"}}))
        );
        assert_eq!(
            check("{}", &[("pods", "0"), ("cpu", "0")]),
            Some(json!({"hard": {"pods": "5", "cpu": "2"}, "used": {"pods": "0", "cpu": "0"}}))
        );
        let stale =
            "{hard: {pods: '5', cpu: '2', memory: 1Gi}, used: {pods: '1', cpu: '1', memory: '0'}}";
        assert_eq!(
            check(stale, &[("pods", "1"), ("cpu", "1")]),
            Some(json!({"hard": {"memory": null}, "used": {"memory": null}}))
        );
    }
}
