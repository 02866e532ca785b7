//! Who may do what: tokens, roles, impersonation, and the words of a refusal.

use crate::tool::Tool;

pub(super) fn all(tool: &Tool<'_>) {
    assert_eq!(tool.ok("auth can-i create pods").trim(), "yes");
    tool.shows("auth can-i --list", &["*.*", "[*]"]);
    tool.shows("auth whoami", &["kubernetes-admin", "system:masters", "system:authenticated"]);
    tool.refused(
        "get pods --as bob",
        r#"pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default""#,
    );
    tool.refused(
        "get nodes --as system:serviceaccount:default:default",
        r#"nodes is forbidden: User "system:serviceaccount:default:default" cannot list resource "nodes" in API group "" at the cluster scope"#,
    );
    tool.refused("get --raw /metrics --as bob", r#"User "bob" cannot get path "/metrics""#);
    tool.ok("get --raw /version --as bob");
    tool.ok("get pods --as bob --as-group system:masters");

    tool.ok("create serviceaccount robot");
    tool.ok("create role reader --verb=get,list --resource=pods");
    tool.ok("create rolebinding robots --role=reader --serviceaccount=default:robot");
    let robot = "--as=system:serviceaccount:default:robot";
    assert_eq!(tool.ok(&format!("auth can-i list pods {robot}")).trim(), "yes");
    let no = tool.run(&format!("auth can-i delete pods {robot}"), &[], "");
    assert_eq!((no.code, no.out.trim()), (Some(1), "no"));
    let token = tool.ok("create token robot");
    let as_robot = format!(
        "--kubeconfig=/dev/null --server=https://127.0.0.1:6443 --insecure-skip-tls-verify --token={}",
        token.trim()
    );
    tool.shows(&format!("get pods {as_robot}"), &["web-"]);
    tool.refused(
        &format!("delete pods --all {as_robot}"),
        r#"is forbidden: User "system:serviceaccount:default:robot" cannot delete resource "pods" in API group "" in the namespace "default""#,
    );
    tool.refused(
        &format!("create role more --verb=* --resource=secrets {as_robot}"),
        r#"cannot create resource "roles" in API group "rbac.authorization.k8s.io""#,
    );
    tool.ok("delete rolebinding robots");
    tool.refused(&format!("get pods {as_robot}"), "Forbidden");
    tool.ok("delete serviceaccount robot");
    tool.refused(&format!("get pods {as_robot}"), "Unauthorized");
}
