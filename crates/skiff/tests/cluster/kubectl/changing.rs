//! Commands that change things: patch, edit, scale, rollouts, labels, deletion.

use crate::tool::{Tool, finish};

pub(super) fn all(tool: &Tool<'_>) {
    metadata(tool);
    patches(tool);
    editing(tool);
    rollouts(tool);
    whole_objects(tool);
    deletion(tool);
}

fn metadata(tool: &Tool<'_>) {
    tool.ok("label deploy/web tier=front");
    tool.refused("label deploy/web tier=back", "--overwrite is false");
    tool.ok("label deploy/web tier=back --overwrite");
    assert_eq!(tool.field("deploy/web", "{.metadata.labels.tier}"), "back");
    tool.ok("label deploy/web tier-");
    tool.ok_with("annotate deploy/web", &["note=a note"], "");
    assert_eq!(tool.field("deploy/web", "{.metadata.annotations.note}"), "a note");
    tool.refused("label deploy/web a/b/c=d", "a/b/c");
}

pub(super) fn patches(tool: &Tool<'_>) {
    let patch = |kind: &str, text: &str| {
        tool.ok_with(&format!("patch deploy/web --type={kind} -p"), &[text], "");
    };
    patch("json", r#"[{"op":"replace","path":"/spec/replicas","value":1}]"#);
    patch("merge", r#"{"spec":{"revisionHistoryLimit":3}}"#);
    patch(
        "strategic",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"website","env":[{"name":"A","value":"b"}]}]}}}}"#,
    );
    let containers = "{.spec.template.spec.containers[*].name}";
    assert_eq!(tool.field("deploy/web", containers), "website", "merged by name, not replaced");
    assert_eq!(tool.field("deploy/web", "{.spec.replicas} {.spec.revisionHistoryLimit}"), "1 3");
    let test = r#"[{"op":"test","path":"/spec/replicas","value":7}]"#;
    let complaint = "the server rejected our request due to an error in our request";
    tool.refused_with("patch deploy/web --type=json -p", &[test], complaint);
    let wrong = r#"{"spec":{"replicas":-1}}"#;
    let complaint = "spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    tool.refused_with("patch deploy/web -p", &[wrong], complaint);
    let selector = r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#;
    tool.refused_with("patch deploy/web -p", &[selector], "field is immutable");
}

fn editing(tool: &Tool<'_>) {
    let edit = |script: &str| {
        let mut command = tool.command("edit deploy/web", &[]);
        command.env("EDITOR", format!("sed -i {script}"));
        finish(command, "")
    };
    let edited = edit("s/replicas:.1/replicas:\\ 2/");
    assert!(edited.out.contains("deployment.apps/web edited"), "{edited:?}");
    assert_eq!(tool.field("deploy/web", "{.spec.replicas}"), "2");
    let same = edit("s/nothing/changes/");
    assert!(
        same.err.contains("no changes made") || same.out.contains("no changes made"),
        "{same:?}"
    );
}

fn rollouts(tool: &Tool<'_>) {
    let done =
        || tool.shows("rollout status deploy/web --timeout=200s", &["successfully rolled out"]);
    tool.ok("set image deploy/web website=skiff.local/website:1.1.0");
    tool.ok("annotate deploy/web kubernetes.io/change-cause=newer");
    done();
    let history = tool.shows("rollout history deploy/web", &["REVISION", "newer"]);
    let revisions = history.lines().filter(|line| line.starts_with(char::is_numeric)).count();
    assert!(revisions >= 2, "{history}");
    tool.ok("rollout undo deploy/web");
    done();
    let image = "{.spec.template.spec.containers[0].image}";
    assert_eq!(tool.field("deploy/web", image), super::IMAGE);
    tool.refused(
        "rollout undo deploy/web --to-revision=99",
        "unable to find specified revision 99",
    );
    tool.ok("rollout pause deploy/web");
    tool.refused("rollout undo deploy/web", "paused");
    tool.ok("set env deploy/web B=c");
    tool.ok("rollout resume deploy/web");
    tool.ok("rollout restart deploy/web");
    done();
    tool.ok("scale deploy/web --replicas=3");
    tool.refused("scale deploy/web --replicas=1 --current-replicas=7", "Expected replicas to be 7");
    done();
    tool.ok("scale deploy/web --replicas=1");
    tool.until("get pods -l app=web -o name", &[], |out| out.lines().count() == 1);
    tool.ok("set resources deploy/web --limits=cpu=200m,memory=64Mi --requests=cpu=10m");
    tool.ok("autoscale deploy/web --min=1 --max=2");
    done();
}

fn whole_objects(tool: &Tool<'_>) {
    let manifest = |colour: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: whole}}, data: {{colour: {colour}}}}}"
        )
    };
    assert!(tool.apply(&manifest("red")).contains("configmap/whole created"));
    assert!(tool.apply(&manifest("red")).contains("configmap/whole unchanged"));
    let diff = tool.run("diff -f -", &[], &manifest("green"));
    assert_eq!(diff.code, Some(1), "{diff:?}");
    assert!(
        diff.out.contains("-  colour: red") && diff.out.contains("+  colour: green"),
        "{diff:?}"
    );
    let dry = tool.ok_with("apply --dry-run=server -f -", &[], &manifest("green"));
    assert!(dry.contains("(server dry run)"), "{dry}");
    assert_eq!(tool.field("cm/whole", "{.data.colour}"), "red", "a dry run changes nothing");
    tool.ok_with("replace -f -", &[], &manifest("blue"));
    assert_eq!(tool.field("cm/whole", "{.data.colour}"), "blue");
    let again = tool.run("create -f -", &[], &manifest("blue"));
    assert!(again.err.contains("(AlreadyExists): error when creating \"STDIN\""), "{again:?}");
    for line in [
        "create serviceaccount robot",
        "create role reader --verb=get,list --resource=pods,pods/log",
        "create rolebinding robots --role=reader --serviceaccount=x:robot",
        "create quota limits --hard=pods=50",
        "create service nodeport outside --tcp=80:8080",
        "create service externalname elsewhere --external-name=example.com",
        "create secret docker-registry registry --docker-server=r --docker-username=u --docker-password=p",
        "create poddisruptionbudget some --selector=app=nobody --min-available=1",
        "create job once --image=skiff.local/website:1.0.0",
    ] {
        tool.ok(line);
    }
    assert_eq!(tool.ok("create token robot --duration=10m").trim().split('.').count(), 3);
}

fn deletion(tool: &Tool<'_>) {
    tool.shows("delete deploy/web --dry-run=server", &["deleted"]);
    tool.ok("delete deploy/web --cascade=orphan");
    tool.shows("get rs -o name", &["replicaset.apps/web-"]);
    tool.shows("get pods -o name", &["pod/web-"]);
    tool.ok("delete rs --all --cascade=foreground");
    tool.until("get pods -l app=web -o name", &[], str::is_empty);
    tool.ok(&format!("create deployment back --image={}", super::IMAGE));
    tool.ok("rollout status deploy/back --timeout=200s");
    tool.ok("delete deploy back");
    tool.until("get rs,pods -l app=back -o name", &[], str::is_empty);
    tool.refused("delete pod nosuch", "Error from server (NotFound): pods \"nosuch\" not found");
    tool.ok("delete pod nosuch --ignore-not-found");
    tool.ok(&format!("delete namespace {} --timeout=200s", tool.namespace));
    let gone = format!("namespaces {:?} not found", tool.namespace);
    tool.refused(&format!("get namespace {}", tool.namespace), &gone);
}
