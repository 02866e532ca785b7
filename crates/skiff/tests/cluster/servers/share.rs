//! What servers have in common: keys, state, and who may join them.

use testkit::eventually;

use super::{PATIENCE, Shared, kill};

#[test]
fn a_second_server_is_the_same_cluster_and_needs_the_secret() {
    let mut shared = Shared::new(1);
    let (a, b) = (shared.add_ready_server(), shared.add_ready_server());
    let read = |server: usize, name: &str| {
        std::fs::read_to_string(shared.servers[server].directory.join(name)).expect("read")
    };
    for name in ["pki/ca.key", "pki/service-accounts.key", "pki/storage.keys"] {
        assert_eq!(read(a, name), read(b, name), "{name}");
    }
    // What one acknowledged the other shows at once, in both directions.
    for (round, (one, other)) in [(a, b), (b, a), (a, b)].into_iter().enumerate() {
        let name = format!("m{round}");
        shared.kubectl(one, &["create", "configmap", &name, "--from-literal=a=b"]).unwrap();
        shared.kubectl(other, &["get", "configmap", &name]).unwrap();
    }
    // Secrets are sealed with the same key, tokens are signed with the same key.
    shared.kubectl(a, &["create", "secret", "generic", "s", "--from-literal=x=y"]).unwrap();
    let secret = shared.kubectl(b, &["get", "secret", "s", "-o", "jsonpath={.data.x}"]).unwrap();
    assert_eq!(secret, "eQ==");
    eventually("the service account is there", PATIENCE, || {
        shared.kubectl(a, &["get", "serviceaccount", "default"]).is_ok()
    });
    let token = shared.kubectl(a, &["create", "token", "default"]).unwrap();
    let authority = shared.servers[b].directory.join("pki/ca.crt");
    let flags = ["--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443"];
    let authority = format!("--certificate-authority={}", authority.display());
    let token = format!("--token={}", token.trim());
    let as_account = [flags[0], flags[1], &authority, &token, "auth", "whoami"];
    let who = shared.kubectl(b, &as_account).unwrap();
    assert!(who.contains("system:serviceaccount:default:default"), "{who}");

    // A third without the secret is refused, and told what to do.
    let c = shared.add_server();
    kill(&mut shared.servers[c].process);
    let directory = shared.servers[c].directory.clone();
    std::fs::remove_dir_all(&directory).unwrap();
    shared.start_server(c);
    let ended = shared.servers[c].process.as_mut().unwrap().wait().unwrap();
    assert!(!ended.success());
    let log = shared.log(c);
    assert!(log.contains("copy pki/datastore.secret from the data directory"), "{log}");
    // So is one with the keys of another cluster.
    std::fs::create_dir_all(directory.join("pki")).unwrap();
    let secret = "pki/datastore.secret";
    std::fs::copy(shared.servers[a].directory.join(secret), directory.join(secret)).unwrap();
    for name in ["ca.key", "service-accounts.key", "storage.keys"] {
        std::fs::write(directory.join("pki").join(name), "of another cluster").unwrap();
    }
    shared.start_server(c);
    assert!(!shared.servers[c].process.as_mut().unwrap().wait().unwrap().success());
    let log = shared.log(c);
    assert!(log.contains("holds the keys of another cluster"), "{log}");
}
