"""What the Python client does with objects. Fails at the first surprise."""

import kubernetes
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, apps, policy = client.CoreV1Api(), client.AppsV1Api(), client.PolicyV1Api()
space = "default"


def config_map(name, **data):
    metadata = client.V1ObjectMeta(name=name, labels={"by": "python"})
    return client.V1ConfigMap(metadata=metadata, data=data)


def refused(code, reason, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert error.status == code and reason in error.body, error
        return
    raise AssertionError(f"{call} was not refused")


assert client.VersionApi().get_code().git_version.startswith("v1.36")
assert any(group.name == "apps" for group in client.ApisApi().get_api_versions().groups)

# One object's life, watched.
made = core.create_namespaced_config_map(space, config_map("a", k="v"))
assert made.metadata.uid and made.metadata.creation_timestamp
refused(409, "AlreadyExists", core.create_namespaced_config_map, space, config_map("a"))
assert core.read_namespaced_config_map("a", space).data == {"k": "v"}
patched = core.patch_namespaced_config_map("a", space, {"data": {"l": "w"}})
assert patched.data == {"k": "v", "l": "w"}
patched.data = {"k": "x"}
assert core.replace_namespaced_config_map("a", space, patched).data == {"k": "x"}
refused(409, "Conflict", core.replace_namespaced_config_map, "a", space, patched)
refused(404, "NotFound", core.read_namespaced_config_map, "none", space)
refused(422, "metadata.name", core.create_namespaced_config_map, space, config_map("A_"))
core.delete_namespaced_config_map("a", space, body=client.V1DeleteOptions(propagation_policy="Background"))
seen = []
stream = watch.Watch()
listing = dict(namespace=space, label_selector="by=python", timeout_seconds=20)
for event in stream.stream(core.list_namespaced_config_map, resource_version=made.metadata.resource_version, **listing):
    seen.append(event["type"])
    assert event["object"].metadata.name == "a"
    if event["type"] == "DELETED":
        stream.stop()
assert seen == ["MODIFIED", "MODIFIED", "DELETED"], seen

# Pages, selectors, collections.
for number in range(5):
    core.create_namespaced_config_map(space, config_map(f"page-{number}"))
names, token = [], None
while token != "":
    page = core.list_namespaced_config_map(space, label_selector="by=python", limit=2, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue or ""
assert names == [f"page-{number}" for number in range(5)], names
one = core.list_config_map_for_all_namespaces(field_selector="metadata.name=page-3")
assert len(one.items) == 1
core.delete_collection_namespaced_config_map(space, label_selector="by=python")
assert not core.list_namespaced_config_map(space, label_selector="by=python").items

# Workloads: the strategic patch of lists, scale, status, dry runs.
labels = {"app": "python"}
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels=labels),
    spec=client.V1PodSpec(containers=[client.V1Container(name="a", image="a:1"), client.V1Container(name="b", image="b:1")]),
)
spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="python"), spec=spec)
dry = apps.create_namespaced_deployment(space, deployment, dry_run="All")
assert dry.spec.strategy.rolling_update.max_surge == "25%"
refused(404, "NotFound", apps.read_namespaced_deployment, "python", space)
apps.create_namespaced_deployment(space, deployment)
image = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b:2"}]}}}}
changed = apps.patch_namespaced_deployment("python", space, image)
assert [one.image for one in changed.spec.template.spec.containers] == ["b:2", "a:1"] or [
    one.image for one in changed.spec.template.spec.containers
] == ["a:1", "b:2"]
scale = apps.patch_namespaced_deployment_scale("python", space, {"spec": {"replicas": 3}})
assert scale.spec.replicas == 3 and scale.status.selector == "app=python"
status = apps.patch_namespaced_deployment_status("python", space, {"status": {"replicas": 2}})
assert status.status.replicas == 2 and status.spec.replicas == 3
refused(422, "spec.selector", apps.patch_namespaced_deployment, "python", space, {"spec": {"selector": {"matchLabels": {"app": "other"}}}})
apps.delete_namespaced_deployment("python", space)

# Objects of any kind, by discovery.
anything = dynamic.DynamicClient(client.ApiClient())
services = anything.resources.get(api_version="v1", kind="Service")
body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "python"}, "spec": {"selector": labels, "ports": [{"port": 80}]}}
made = services.create(body=body, namespace=space)
assert made.spec.clusterIP
assert services.get(name="python", namespace=space).spec.ports[0].targetPort == 80
services.delete(name="python", namespace=space)
utils.create_from_dict(client.ApiClient(), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "python"}, "stringData": {"a": "b"}})
assert core.read_namespaced_secret("python", space).data == {"a": "Yg=="}
core.delete_namespaced_secret("python", space)
review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods")))
assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
print("python client", kubernetes.__version__, "is content")
