"""What the Python client does with pods on a node: run, watch, log, exec, attach, port-forward. Fails at the first surprise."""

import http.client
import sys

import kubernetes
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

IMAGE = "skiff.local/website:1.0.0"
space = "python"
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=space)))


def pod(name, *arguments, **options):
    container = client.V1Container(name="main", image=IMAGE, args=list(arguments), **options)
    spec = client.V1PodSpec(containers=[container], restart_policy="Never", termination_grace_period_seconds=1)
    metadata = client.V1ObjectMeta(name=name, labels={"by": "python"})
    return core.create_namespaced_pod(space, client.V1Pod(metadata=metadata, spec=spec))


def until(name, phase):
    """Watches a pod until it is in a phase."""
    events = watch.Watch()
    chosen = dict(namespace=space, field_selector=f"metadata.name={name}", timeout_seconds=60)
    for event in events.stream(core.list_namespaced_pod, **chosen):
        if event["object"].status.phase == phase:
            events.stop()
            return event["object"]
    raise AssertionError(f"{name} never was {phase}")


pod("talk", "print", "500", "100")
pod("web")
pod("short", "print", "3")
assert until("talk", "Running").spec.node_name
until("short", "Succeeded")

# Logs, whole and as they are written.
assert core.read_namespaced_pod_log("short", space) == "line 1\nline 2\nline 3\n"
assert core.read_namespaced_pod_log("short", space, tail_lines=1, timestamps=True).endswith("Z line 3\n")
lines = watch.Watch()
followed = []
for line in lines.stream(core.read_namespaced_pod_log, name="talk", namespace=space):
    followed.append(line)
    if len(followed) == 3:
        lines.stop()
assert followed == ["line 1", "line 2", "line 3"], followed

# Commands in a container: what they print, take and return.
connect = core.connect_get_namespaced_pod_exec
everything = dict(stdin=False, stdout=True, stderr=True, tty=False)
assert stream(connect, "talk", space, command=["/testapp", "print", "2"], **everything) == "line 1\nline 2\n"
session = stream(connect, "talk", space, command=["/testapp", "cat"], **{**everything, "stdin": True}, _preload_content=False)
session.write_stdin("through and back\n")
while session.is_open() and not session.peek_stdout():
    session.update(timeout=20)
assert session.read_stdout() == "through and back\n"
session.close()
failing = stream(connect, "talk", space, command=["/testapp", "crash", "7"], **everything, _preload_content=False)
failing.run_forever(timeout=20)
assert failing.returncode == 7 and "crashing with 7" in failing.read_stderr(), failing.returncode
try:
    stream(connect, "none", space, command=["x"], **everything)
    raise AssertionError("a command ran in no pod")
except ApiException as error:
    assert error.status in (0, 404) and "404" in str(error), error

# Its first process.
attached = stream(core.connect_get_namespaced_pod_attach, "talk", space, **everything, _preload_content=False)
while attached.is_open() and not attached.peek_stdout():
    attached.update(timeout=20)
assert "line " in attached.read_stdout()
attached.close()

# A port of it.
until("web", "Running")
for attempt in range(2):
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", space, ports="8080")
    connection = http.client.HTTPConnection("web")
    connection.sock = forward.socket(8080)
    connection.sock.settimeout(20)
    connection.request("GET", "/version")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"1.0.0\n")
    connection.close()
    assert forward.error(8080) is None

# Through the server's proxy; evictions; deletion, watched.
assert core.connect_get_namespaced_pod_proxy_with_path("web:8080", space, "version") == "1.0.0\n"
eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="talk", namespace=space))
core.create_namespaced_pod_eviction("talk", space, eviction)
version = core.list_namespaced_pod(space).metadata.resource_version
core.delete_collection_namespaced_pod(space, label_selector="by=python", grace_period_seconds=0)
gone = set()
events = watch.Watch()
for event in events.stream(core.list_namespaced_pod, namespace=space, resource_version=version, timeout_seconds=60):
    if event["type"] == "DELETED":
        gone.add(event["object"].metadata.name)
    if {"web", "short"} <= gone:
        events.stop()
assert {"web", "short"} <= gone, gone
core.delete_namespace(space)
print("python client", kubernetes.__version__, "is content")
