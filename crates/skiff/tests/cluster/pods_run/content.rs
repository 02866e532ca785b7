//! What containers find: environment, arguments, volumes and their updates.

use crate::tool::Tool;

pub(super) fn all(tool: &Tool<'_>) {
    environment(tool);
    tool.until_field("pod/arguments", "{.status.phase}", "Succeeded");
    assert_eq!(tool.ok("logs arguments"), "/testapp\0cat\0/proc/self/cmdline\0");
    tool.ready("pod/volumes");
    volumes(tool);
    tokens(tool);
    updates(tool);
    tool.until("get events", &[], |out| {
        out.contains("pod/wronghost") && out.contains("hostPath type check failed")
    });
    paths(tool);
    tool.ok("delete pod environment arguments volumes wronghost badpath nopath --grace-period=1");
}

fn environment(tool: &Tool<'_>) {
    tool.until_field("pod/environment", "{.status.phase}", "Succeeded");
    let uid = tool.field("pod/environment", "{.metadata.uid}");
    let addresses =
        tool.field("pod/environment", "{.status.podIP} {.status.hostIP} {.spec.nodeName}");
    let mut parts = addresses.split(' ');
    let mut part = || parts.next().unwrap_or_default();
    let (ip, host, node) = (part(), part(), part());
    let log = tool.ok("logs environment");
    for (name, value) in [
        ("A", "a"),
        ("B", "a-$(A)-$(NOPE)-anna"),
        ("CM_colour", "blue"),
        ("CM_KEY", "value"),
        ("user", "anna"),
        ("COLOUR", "blue"),
        ("PASSWORD", "s3cret"),
        ("POD", "environment"),
        ("NS", "pods"),
        ("POD_UID", &uid),
        ("IP", ip),
        ("HOSTIP", host),
        ("NODE", node),
        ("ACCOUNT", "default"),
        ("ZONE", "north"),
        ("NOTE", "hello"),
        ("CPU", "1"),
        ("MEMORY", "32"),
        ("MILLI", "125"),
        ("HOSTNAME", "environment"),
        ("EARLIER_SERVICE_HOST", "10.96.77.7"),
        ("EARLIER_SERVICE_PORT_WEB", "80"),
        ("EARLIER_PORT", "tcp://10.96.77.7:80"),
        ("EARLIER_PORT_80_TCP_PROTO", "tcp"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("VERSION", "1.0.0"),
    ] {
        let line = format!("{name}={value}");
        assert!(log.lines().any(|found| found == line), "no {line:?} in\n{log}");
    }
    assert!(!log.contains("CM_bin") && !log.contains("OPTIONAL"), "{log}");
}

fn volumes(tool: &Tool<'_>) {
    let inside = |words: &[&str]| tool.inside("volumes", words);
    for (path, content) in [
        ("/map/colour", "blue"),
        ("/map/two.properties", "a=1\nb=2\n"),
        ("/map/bin", "\0\u{1}\u{2}"),
        ("/items/deep/er/colour", "blue"),
        ("/secret/password", "s3cret"),
        ("/downward/name", "volumes"),
        ("/downward/memory", "67108864"),
        ("/projected/colour", "blue"),
        ("/projected/user", "anna"),
        ("/projected/name", "volumes"),
        ("/sub/colour", "blue"),
    ] {
        assert_eq!(inside(&["cat", path]), content, "{path}");
    }
    assert!(inside(&["cat", "/downward/labels"]).contains("zone=\"north\""));
    assert!(inside(&["ls", "/map"]).contains("colour -> ..data/colour"));
    assert!(!inside(&["ls", "/items"]).contains("KEY"), "only what is listed");
    assert!(!inside(&["ls", "/missing"]).contains("colour"));
    for (place, writable) in [
        ("/memory/x", true),
        ("/disk/x", true),
        ("/map/x", false),
        ("/secret/x", false),
        ("/host/x", false),
    ] {
        let outcome = tool.run(&format!("exec volumes -- /testapp write {place} y"), &[], "");
        assert_eq!(outcome.code == Some(0), writable, "{place}: {outcome:?}");
    }
    assert!(inside(&["ls", "/disk"]).contains("volumes/"), "the expanded subPath");
    let mounts = inside(&["cat", "/proc/mounts"]);
    let kind = |place: &str| {
        let line = mounts.lines().find(|line| line.contains(&format!(" {place} ")));
        line.and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned()
    };
    assert_eq!(kind("/memory"), "tmpfs");
    assert_eq!(kind("/secret"), "tmpfs", "secrets stay off the disk:\n{mounts}");
    assert_eq!(kind("/projected"), "tmpfs", "tokens stay off the disk");
    assert_ne!(kind("/disk"), "tmpfs");
    assert!(mounts.lines().any(|line| line.contains(" /memory ") && line.contains("size=1024k")));
}

/// What a subPath is made from may be wrong, and may be put right.
fn paths(tool: &Tool<'_>) {
    let message = "{.status.containerStatuses[0].state.waiting.message}";
    let missing = r#"missing value for "NOPE""#;
    tool.until_field("pod/nopath", message, missing);
    let absolute = "error SubPath `/absolute` must not be an absolute path";
    tool.until_field("pod/badpath", message, absolute);
    tool.ok("annotate pod badpath path=relative --overwrite");
    tool.ready("pod/badpath");
}

fn tokens(tool: &Tool<'_>) {
    let token = tool.inside("volumes", &["cat", "/projected/token"]);
    assert_eq!(token.split('.').count(), 3);
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(tool.inside("volumes", &["cat", &format!("{account}/namespace")]), "pods");
    assert!(tool.inside("volumes", &["cat", &format!("{account}/ca.crt")]).contains("BEGIN CERT"));
    let token = tool.inside("volumes", &["cat", &format!("{account}/token")]);
    let line = format!(
        "auth whoami --kubeconfig=/dev/null --server=https://127.0.0.1:6443 --insecure-skip-tls-verify --token={token}"
    );
    tool.shows(
        &line,
        &["system:serviceaccount:pods:default", "authentication.kubernetes.io/pod-name", "volumes"],
    );
    // A token for another audience is nobody's here.
    let other = tool.inside("volumes", &["cat", "/projected/token"]);
    tool.refused(&line.replace(&token, &other), "Unauthorized");
}

fn updates(tool: &Tool<'_>) {
    tool.ok_with("patch configmap settings -p", &[r#"{"data":{"colour":"green"}}"#], "");
    tool.ok_with("patch secret hidden -p", &[r#"{"stringData":{"user":"otto"}}"#], "");
    tool.ok("label pod volumes zone=south --overwrite");
    for (path, content) in
        [("/map/colour", "green"), ("/projected/user", "otto"), ("/projected/colour", "green")]
    {
        tool.until("exec volumes -- /testapp cat", &[path], |out| out == content);
    }
    tool.until("exec volumes -- /testapp cat /downward/labels", &[], |out| {
        out.contains("zone=\"south\"")
    });
    assert_eq!(
        tool.inside("volumes", &["cat", "/sub/colour"]),
        "blue",
        "subPaths stay as they were"
    );
    tool.ok("create configmap nosuch --from-literal=colour=late");
    tool.until("exec volumes -- /testapp ls /missing", &[], |out| out.contains("colour"));
}
