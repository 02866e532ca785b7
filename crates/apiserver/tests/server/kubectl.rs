//! Real kubectl, oldest and newest that are installed, against a listener with TLS on loopback.

use std::{
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

    #[track_caller]
    fn works(&self, arguments: &str, input: &str, expected: &str) {
        let output = self.run(arguments, input);
        let shown = text(&output);
        assert!(output.status.success(), "{}: {arguments}: {shown}", self.program.display());
        assert!(
            shown.contains(expected),
            "{}: {arguments}: {expected:?} not in {shown}",
            self.program.display()
        );
    }

    #[track_caller]
    fn fails(&self, arguments: &str, input: &str, expected: &str) {
        let output = self.run(arguments, input);
        let shown = text(&output);
        assert!(!output.status.success(), "{}: {arguments}: {shown}", self.program.display());
        assert!(
            shown.contains(expected),
            "{}: {arguments}: {expected:?} not in {shown}",
            self.program.display()
        );
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
        tokio::task::spawn_blocking(move || {
            story(&Kubectl { program: &program, directory: &home })
        })
        .await
        .expect("the story holds");
    }
}

fn story(kubectl: &Kubectl<'_>) {
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
    kubectl.works("delete -f -", WEBSITE, "service \"web\" deleted");
}
