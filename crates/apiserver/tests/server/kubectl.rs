//! Real kubectl, oldest and newest that are installed, against a listener with TLS on loopback.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::support::Cluster;
use pki::{Profile, kubeconfig};

const WEBSITE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: website:1.0.0
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
"#;

const ROLE: &str = "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reconciled}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
";

/// kubectl and its siblings, `kubectl.1.27` and so on, wherever the link in PATH leads.
fn installed() -> Vec<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|directory| directory.join("kubectl"))
        .find_map(|path| path.canonicalize().ok());
    let Some(found) = found else { return Vec::new() };
    let sibling = |version: &str| found.with_file_name(format!("kubectl.{version}"));
    let versions: Vec<PathBuf> = ["1.27", "1.33"]
        .iter()
        .map(|version| sibling(version))
        .filter(|path| path.exists())
        .collect();
    if versions.is_empty() { vec![found] } else { versions }
}

struct Kubectl<'a> {
    program: &'a Path,
    directory: &'a Path,
    surprises: RefCell<Vec<String>>,
}

impl Kubectl<'_> {
    /// Runs kubectl with these arguments, separated by spaces, and `input` on stdin.
    fn run(&self, arguments: &str, input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new(self.program)
            .env("KUBECONFIG", self.directory.join("kubeconfig"))
            .env("HOME", self.directory)
            .env("KUBE_EDITOR", "sed -i s/replicas:.2/replicas:\\ 4/")
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
        child.wait_with_output().expect("kubectl ends")
    }

    fn works(&self, arguments: &str, input: &str, expected: &str) {
        self.expect(true, arguments, input, expected);
    }

    fn fails(&self, arguments: &str, input: &str, expected: &str) {
        self.expect(false, arguments, input, expected);
    }

    /// Goes on after a surprise: the story's end tells all of them.
    fn expect(&self, success: bool, arguments: &str, input: &str, expected: &str) {
        let output = self.run(arguments, input);
        let shown = text(&output);
        if output.status.success() != success || !shown.contains(expected) {
            let program = self.program.display();
            let surprise = format!("{program} {arguments}: expected {expected:?}, got {shown}");
            self.surprises.borrow_mut().push(surprise);
        }
    }
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .join("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_cannot_tell_the_difference() {
    let programs = installed();
    if programs.is_empty() {
        eprintln!("no kubectl in PATH: nothing tested");
        return;
    }
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    let identity = cluster
        .authority
        .issue(&Profile::client("admin", Some("system:masters")))
        .expect("certificate");
    let config = kubeconfig(
        "test",
        &format!("https://{address}"),
        cluster.authority.certificate(),
        &identity,
    );
    for (number, program) in programs.iter().enumerate() {
        let home = cluster.directory.path().join(format!("home{number}"));
        std::fs::create_dir(&home).expect("home");
        std::fs::write(home.join("kubeconfig"), &config).expect("kubeconfig");
        let (program, home) = (program.clone(), home.clone());
        tokio::task::spawn_blocking(move || story(&program, &home)).await.expect("the story holds");
    }
}

fn story(program: &Path, directory: &Path) {
    let kubectl = &Kubectl { program, directory, surprises: RefCell::default() };
    first_steps(kubectl);
    objects(kubectl);
    pods_and_nodes(kubectl);
    kubectl.works("delete -f -", WEBSITE, "service \"web\" deleted");
    let surprises = kubectl.surprises.take();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

fn first_steps(kubectl: &Kubectl<'_>) {
    kubectl.works("version", "", "v1.36.2+skiff");
    kubectl.works("get namespaces", "", "kube-system");
    kubectl.works("api-resources", "", "deployments");
    kubectl.works("explain deployment.spec.replicas", "", "Number of desired pods");
    kubectl.works("apply -f -", WEBSITE, "deployment.apps/web created");
    kubectl.works("apply -f -", WEBSITE, "deployment.apps/web unchanged");
    let changed = WEBSITE.replace("1.0.0", "1.1.0");
    kubectl.works("diff -f -", WEBSITE, "");
    kubectl.works("apply -f -", &changed, "deployment.apps/web configured");
    kubectl.works("get deploy web -o jsonpath={..image}", "", "website:1.1.0");
    kubectl.works("get deploy,svc -o wide", "", "website:1.1.0");
    kubectl.works("scale deploy/web --replicas=3", "", "scaled");
    kubectl.works("patch deploy web -p {\"spec\":{\"replicas\":2}}", "", "patched");
    kubectl.works("edit deploy web", "", "edited");
    kubectl.works("get deploy web -o jsonpath={.spec.replicas}", "", "4");
    kubectl.works("label deploy web tier=front", "", "labeled");
    kubectl.works("set image deploy/web web=website:1.2.0", "", "image updated");
    kubectl.works("describe deploy web", "", "website:1.2.0");
    kubectl.works("describe svc web", "", "ClusterIP");
    kubectl.works("create configmap settings --from-literal=a=b", "", "created");
    kubectl.works("create deployment dry --image=x --dry-run=server", "", "server dry run");
    kubectl.works("auth can-i create pods", "", "yes");
    kubectl.fails("auth can-i create pods --as=jane", "", "no");
    kubectl.works("get --raw /readyz?verbose", "", "readyz check passed");
    kubectl.fails(
        "get pods --as=jane",
        "",
        "pods is forbidden: User \"jane\" cannot list resource",
    );
    kubectl.fails(
        "apply -f -",
        &WEBSITE.replace("replicas", "replica"),
        "unknown field \"spec.replica\"",
    );
    kubectl.fails("get pod none", "", "Error from server (NotFound): pods \"none\" not found");
    kubectl.works(
        "wait --for=jsonpath={.spec.replicas}=4 deploy/web --timeout=5s",
        "",
        "condition met",
    );
    kubectl.works("delete configmap settings", "", "deleted");
}

fn objects(kubectl: &Kubectl<'_>) {
    kubectl.works("create serviceaccount robot", "", "created");
    kubectl.works("create token robot --duration=10m", "", "ey");
    kubectl.works("create role reader --verb=get --resource=pods", "", "created");
    kubectl.works(
        "create rolebinding reader --role=reader --serviceaccount=default:robot",
        "",
        "created",
    );
    kubectl.works("create clusterrolebinding viewer --clusterrole=view --user=joe", "", "created");
    kubectl.works("auth can-i --list", "", "*.*");
    kubectl.works("auth can-i --list --as=joe", "", "selfsubjectrulesreviews.authorization.k8s.io");
    kubectl.works("auth can-i --list --as=system:serviceaccount:default:robot", "", "pods ");
    // The oldest knows the question only in versions that are served no more.
    if !kubectl.program.ends_with("kubectl.1.27") {
        kubectl.works("auth whoami", "", "system:masters");
        let groups = "auth whoami --as=jane --as-group=team -o jsonpath={.status.userInfo.groups}";
        kubectl.works(groups, "", "team");
    }
    kubectl.works("auth reconcile -f -", ROLE, "clusterrole.rbac.authorization.k8s.io/reconciled");
    kubectl.works("auth reconcile -f -", &ROLE.replace("[get]", "[get,list]"), "reconciled");
    kubectl.works("get clusterrole reconciled -o jsonpath={.rules[*].verbs}", "", "list");
    kubectl.works("auth can-i get pods --as=system:serviceaccount:default:robot", "", "yes");
    kubectl.works("create secret generic hidden --from-literal=a=b", "", "created");
    kubectl.works("get secret hidden -o yaml", "", "a: Yg==");
    // Nothing finishes the deletion of namespaces here: each program has one of its own.
    let team = kubectl.directory.file_name().unwrap_or_default().to_string_lossy();
    kubectl.works(&format!("create namespace {team}"), "", "created");
    kubectl.works(&format!("create quota q --hard=pods=2 -n {team}"), "", "created");
    kubectl.works(&format!("delete namespace {team} --wait=false"), "", "deleted");
    kubectl.works("expose deploy web --name=web2 --port=80 --type=NodePort", "", "exposed");
    kubectl.works("autoscale deploy web --max=5", "", "autoscaled");
    kubectl.works("get all", "", "service/web2");
    kubectl.works("get deploy --sort-by=.metadata.name --chunk-size=1 -l app=web", "", "web");
    kubectl.works("get svc --field-selector metadata.name=web2", "", "web2");
    kubectl.works("patch deploy web --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":1}]", "", "patched");
    kubectl.works("rollout pause deploy/web", "", "paused");
    kubectl.works("rollout resume deploy/web", "", "resumed");
    kubectl.works("annotate deploy web note=x", "", "annotate");
    kubectl.works("apply view-last-applied deploy/web", "", "website:1.1.0");
    kubectl.works("replace -f -", WEBSITE.split("---").next().unwrap_or_default(), "replaced");
    kubectl.works("explain pods --recursive", "", "terminationGracePeriodSeconds");
    kubectl.works("api-versions", "", "apps/v1");
    kubectl.works("cluster-info", "", "running at");
    kubectl.fails("apply --server-side -f -", WEBSITE, "");
    kubectl.fails("create configmap Bad_Name", "", "metadata.name: Invalid value: \"Bad_Name\"");
    kubectl.works("delete hpa,secret,role,rolebinding,sa --all", "", "deleted");
    kubectl.works("delete svc web2", "", "deleted");
    kubectl.works("delete clusterrolebinding viewer", "", "deleted");
}

fn pods_and_nodes(kubectl: &Kubectl<'_>) {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    kubectl.works("apply -f -", node, "node/n1 created");
    kubectl.works("get nodes -o wide", "", "Unknown");
    kubectl.works("describe node n1", "", "node.kubernetes.io/not-ready:NoSchedule");
    kubectl.works("taint node n1 a=b:NoSchedule", "", "tainted");
    kubectl.works("cordon n1", "", "cordoned");
    kubectl.works("uncordon n1", "", "uncordoned");
    kubectl.works("create serviceaccount default", "", "created");
    kubectl.works("run p --image=x --restart=Never", "", "pod/p created");
    kubectl.works("get pods -o wide", "", "Pending");
    kubectl.works("describe pod p", "", "kube-api-access-");
    kubectl.fails("logs none", "", "pods \"none\" not found");
    kubectl.fails("exec p -- ls", "", "pod p does not have a host assigned");
    kubectl.works("get events", "", "");
    kubectl.works("label pod p a=b", "", "labeled");
    kubectl.works("delete pod p --now", "", "deleted");
    kubectl.works("drain n1 --ignore-daemonsets", "", "drained");
    kubectl.works("delete node n1", "", "deleted");
    kubectl.works("delete serviceaccount default", "", "deleted");
}
