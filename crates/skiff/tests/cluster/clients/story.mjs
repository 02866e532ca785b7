// What the JavaScript client does: objects, watches, pods and their streams. Fails at the first surprise.

import assert from 'node:assert/strict';
import net from 'node:net';
import { PassThrough } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const image = 'skiff.local/website:1.0.0';
const namespace = 'javascript';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

/** Waits for a promise, but not forever. */
function soon(what, promise) {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`no ${what}`)), 60_000)));
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function refused(code, promise) {
    await assert.rejects(promise, (error) => error.code === code, `${code}`);
}

/** Collects what is written, until it holds a text. */
function collector() {
    const stream = new PassThrough();
    let text = '';
    stream.on('data', (data) => (text += data));
    const until = (part) =>
        soon(part, new Promise((resolve) => {
            const look = () => text.includes(part) && resolve(text);
            stream.on('data', look);
            look();
        }));
    return { stream, until, text: () => text };
}

assert.match((await config.makeApiClient(k8s.VersionApi).getCode()).gitVersion, /^v1\.36/);
await core.createNamespace({ body: { metadata: { name: namespace } } });

// One object's life.
const map = (name, data) => ({ metadata: { name, labels: { by: 'javascript' } }, data });
const made = await core.createNamespacedConfigMap({ namespace, body: map('a', { k: 'v' }) });
assert.ok(made.metadata.creationTimestamp instanceof Date);
await refused(409, core.createNamespacedConfigMap({ namespace, body: map('a') }));
await refused(404, core.readNamespacedConfigMap({ namespace, name: 'none' }));
await refused(422, core.createNamespacedConfigMap({ namespace, body: map('A_') }));
const operations = [{ op: 'add', path: '/data/l', value: 'w' }];
const patched = await core.patchNamespacedConfigMap({ namespace, name: 'a', body: operations });
assert.deepEqual(patched.data, { k: 'v', l: 'w' });
const strategy = (type) => k8s.setHeaderOptions('Content-Type', type);
await core.patchNamespacedConfigMap({ namespace, name: 'a', body: { data: { k: null } } }, strategy(k8s.PatchStrategy.MergePatch));
const applied = { apiVersion: 'v1', kind: 'ConfigMap', ...map('b', { from: 'apply' }) };
const apply = { namespace, name: 'b', fieldManager: 'story', body: applied };
assert.equal((await core.patchNamespacedConfigMap(apply, strategy(k8s.PatchStrategy.ServerSideApply))).metadata.managedFields[0].manager, 'story');
await refused(409, core.replaceNamespacedConfigMap({ namespace, name: 'a', body: patched }));
const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'by=javascript', limit: 1 });
const rest = await core.listNamespacedConfigMap({ namespace, labelSelector: 'by=javascript', limit: 9, _continue: page.metadata._continue });
assert.deepEqual([...page.items, ...rest.items].map((item) => item.metadata.name), ['a', 'b']);

// Objects of any kind.
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'web', namespace }, spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] } };
assert.ok((await objects.create(service)).spec.clusterIP);
assert.equal((await objects.read(service)).spec.ports[0].targetPort, 8080);
assert.equal((await objects.list('v1', 'Service', namespace)).items.length, 1);
await objects.delete(service);

// Watches: a plain one, and the informer.
const events = [];
const watch = new k8s.Watch(config);
await soon('events', new Promise((resolve, reject) => {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const query = { labelSelector: 'by=javascript', resourceVersion: made.metadata.resourceVersion };
    watch.watch(path, query, (type) => events.push(type) === 4 && resolve(), (error) => error && reject(error));
    core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'by=javascript' });
}));
assert.deepEqual(events.slice(0, 2), ['MODIFIED', 'MODIFIED']);
const list = () => core.listNamespacedPod({ namespace });
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/pods`, list);
const pods = new Map();
const waiting = new Set();
const seen = (pod) => {
    pods.set(pod.metadata.name, pod);
    waiting.forEach((look) => look());
};
informer.on('add', seen);
informer.on('update', seen);
informer.on('delete', (pod) => seen({ ...pod, status: { phase: 'gone' } }));
await informer.start();
const phase = (name, phase) =>
    soon(`${name} ${phase}`, new Promise((resolve) => {
        const look = () => pods.get(name)?.status.phase === phase && resolve(waiting.delete(look));
        waiting.add(look);
        look();
    }));

// Pods: logs, commands, attaching, ports.
const pod = (name, ...args) => ({
    metadata: { name },
    spec: { restartPolicy: 'Never', terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image, args }] },
});
for (const body of [pod('talk', 'print', '500', '100'), pod('web'), pod('short', 'print', '3')]) {
    await core.createNamespacedPod({ namespace, body });
}
await phase('short', 'Succeeded');
assert.equal(await core.readNamespacedPodLog({ namespace, name: 'short' }), 'line 1\nline 2\nline 3\n');
await phase('talk', 'Running');
const followed = collector();
const stop = await new k8s.Log(config).log(namespace, 'talk', 'main', followed.stream, { follow: true });
await followed.until('line 3\n');
stop.abort();

const exec = new k8s.Exec(config);
const run = async (command, input) => {
    const [out, err] = [collector(), collector()];
    const status = await soon('status', new Promise((resolve, reject) => {
        exec.exec(namespace, 'talk', 'main', command, out.stream, err.stream, input, false, resolve).catch(reject);
    }));
    return { status, out: out.text(), err: err.text() };
};
const printed = await run(['/testapp', 'print', '2'], null);
assert.equal(printed.status.status, 'Success');
assert.equal(printed.out, 'line 1\nline 2\n');
const failed = await run(['/testapp', 'crash', '7'], null);
assert.equal(failed.status.reason, 'NonZeroExitCode');
assert.deepEqual(failed.status.details.causes.map((cause) => cause.message), ['7']);
const input = new PassThrough();
input.end('through and back\n');
assert.equal((await run(['/testapp', 'cat'], input)).out, 'through and back\n');
await assert.rejects(exec.exec(namespace, 'none', 'main', ['x'], new PassThrough(), null, null, false));

const attached = collector();
const socket = await new k8s.Attach(config).attach(namespace, 'talk', 'main', attached.stream, null, null, false);
await attached.until('line ');
socket.close();

await phase('web', 'Running');
const forward = new k8s.PortForward(config);
const server = net.createServer((local) => forward.portForward(namespace, 'web', [8080], local, null, local));
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
for (let attempt = 0; attempt < 2; attempt++) {
    const local = net.connect(server.address().port, '127.0.0.1');
    const answer = collector();
    local.pipe(answer.stream);
    local.write('GET /version HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n');
    assert.match(await answer.until('1.0.0\n'), /^HTTP\/1\.1 200/);
    local.destroy();
}
server.close();

// Workloads: the status of a rollout, the scale; the end of it all.
const labels = { app: 'web' };
const template = { metadata: { labels }, spec: pod('', 'serve').spec };
delete template.spec.restartPolicy;
await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'web' }, spec: { selector: { matchLabels: labels }, template } } });
const scale = await apps.patchNamespacedDeploymentScale({ namespace, name: 'web', body: { spec: { replicas: 2 } } }, strategy(k8s.PatchStrategy.StrategicMergePatch));
assert.equal(scale.spec.replicas, 2);
await core.deleteCollectionNamespacedPod({ namespace, gracePeriodSeconds: 0 });
await Promise.all(['talk', 'web', 'short'].map((name) => phase(name, 'gone')));
await core.deleteNamespace({ name: namespace });
await informer.stop();
console.log('the JavaScript client is content');
process.exit(0);
