//! Tokens in Secrets, from the annotation to the user behind them.

use k8s_openapi::api::{
    authentication::v1::TokenReview,
    core::v1::{Secret, ServiceAccount},
};
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;

use super::support::{Cluster, object};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_secret_holds_until_its_account_goes() {
    let cluster = Cluster::start().await;
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let secret = json!({"metadata": {"name": "long", "annotations": annotations},
        "type": "kubernetes.io/service-account-token"});
    cluster.create::<Secret>(secret).await;
    let held = |secret: &Secret, key: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|value| String::from_utf8(value.0.clone()).unwrap())
    };
    cluster.wait::<Secret>("long", "a token", |secret| held(secret, "token").is_some()).await;
    let secrets: Api<Secret> = cluster.api();
    let secret = secrets.get("long").await.unwrap();
    let account: ServiceAccount = cluster.api().get("robot").await.unwrap();
    assert_eq!(held(&secret, "ca.crt").as_deref(), Some("the CA"));
    assert_eq!(held(&secret, "namespace").as_deref(), Some("default"));
    let said = secret.annotations().get("kubernetes.io/service-account.uid");
    assert_eq!(said, account.uid().as_ref());
    let reviews: Api<TokenReview> = Api::all(cluster.client.clone());
    let review = object(json!({"spec": {"token": held(&secret, "token")}, "metadata": {}}));
    let judge = async || {
        let review = reviews.create(&PostParams::default(), &review).await.unwrap();
        review.status.unwrap().user.and_then(|user| user.username)
    };
    assert_eq!(judge().await.as_deref(), Some("system:serviceaccount:default:robot"));
    let accounts: Api<ServiceAccount> = cluster.api();
    accounts.delete("robot", &Default::default()).await.unwrap();
    assert_eq!(judge().await, None);
    cluster
        .until("the Secret's end", || async {
            Ok(secrets.get_opt("long").await?.is_none().then_some(()))
        })
        .await;
}
