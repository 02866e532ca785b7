//! Deleting everything in a namespace and counting what stays.

use std::collections::BTreeMap;

use client::{ErrorExt, Metadata};
use futures::{StreamExt, stream};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, ObjectList, Request};

use super::conditions::Report;
use crate::discover::Served;

/// Resources worked on at once.
const CONCURRENT: usize = 8;
/// Objects listed in one page.
const PAGE: u32 = 500;

/// What is left of one resource.
#[derive(Debug, Default)]
struct Left {
    objects: usize,
    finalizers: BTreeMap<String, usize>,
}

/// Deletes all content; pods before anything else, since what they use must outlive them
/// (KEP-5080).
pub(super) async fn delete_content(
    client: &kube::Client,
    namespace: &str,
    served: Vec<Served>,
    report: &mut Report,
) {
    let deletable = served.into_iter().filter(|one| one.namespaced && one.can(&["delete", "list"]));
    let (pods, others): (Vec<_>, Vec<_>) =
        deletable.partition(|one| one.resource.group.is_empty() && one.resource.plural == "pods");
    delete_all(client, namespace, pods, report).await;
    if report.is_empty() {
        delete_all(client, namespace, others, report).await;
    }
}

async fn delete_all(
    client: &kube::Client,
    namespace: &str,
    served: Vec<Served>,
    report: &mut Report,
) {
    let mut results = stream::iter(served)
        .map(|one| async move {
            let left = delete_resource(client, namespace, &one).await;
            (one.resource, left)
        })
        .buffer_unordered(CONCURRENT);
    while let Some((resource, left)) = results.next().await {
        match left {
            Ok(left) => report.left(&resource, left.objects, left.finalizers),
            Err(error) => report.failed(&resource, &error.to_string()),
        }
    }
}

async fn delete_resource(
    client: &kube::Client,
    namespace: &str,
    served: &Served,
) -> Result<Left, kube::Error> {
    let resource = &served.resource;
    let before = list(client, namespace, resource).await?;
    if before.is_empty() {
        return Ok(Left::default());
    }
    let request = Request::new(DynamicObject::url_path(resource, Some(namespace)));
    if served.can(&["deletecollection"]) {
        let request = request
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        client.request_text(request).await?;
    } else {
        for object in before.iter().filter_map(|object| object.metadata.name.as_deref()) {
            let request = request
                .delete(object, &DeleteParams::background())
                .map_err(kube::Error::BuildRequest)?;
            match client.request_text(request).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    let mut left = Left::default();
    for object in list(client, namespace, resource).await? {
        left.objects += 1;
        for finalizer in object.metadata.finalizers.into_iter().flatten() {
            *left.finalizers.entry(finalizer).or_default() += 1;
        }
    }
    Ok(left)
}

use kube::Resource;

async fn list(
    client: &kube::Client,
    namespace: &str,
    resource: &ApiResource,
) -> Result<Vec<Metadata>, kube::Error> {
    let request = Request::new(DynamicObject::url_path(resource, Some(namespace)));
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let built = request.list_metadata(&params).map_err(kube::Error::BuildRequest)?;
        let page: ObjectList<Metadata> = match client.request(built).await {
            // No longer served: nothing to delete.
            Err(error) if error.is_not_found() || error.code() == Some(405) => return Ok(all),
            other => other?,
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}
