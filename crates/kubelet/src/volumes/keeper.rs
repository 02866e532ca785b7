//! Keeps the contents of a running pod's volumes current: when a source changes, when the pod's own metadata change,
//! when a token has to be renewed.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use tokio::sync::watch;
use tracing::debug;

use super::{Ingredients, Tokens, changes, set_up};
use crate::{KubeletOptions, sources::Sources, spec::PodId, spec::fields::Facts};

/// Pause after a failed update.
const AGAIN: Duration = Duration::from_secs(15);

/// Runs until it is dropped. `pods` gives the newest object of the pod, `facts` what the downward API may ask for.
pub(crate) async fn keep(
    options: Arc<KubeletOptions>,
    sources: Arc<Sources>,
    tokens: Tokens,
    mut pods: watch::Receiver<Arc<api::Pod>>,
    facts: watch::Receiver<Facts>,
) {
    let mut news = sources.changes();
    let uid = PodId::of(&pods.borrow()).uid;
    if !changes(&pods.borrow()) {
        return;
    }
    let mut failed = false;
    loop {
        let renewal = async {
            match tokens.next_renewal(&uid) {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        let retry = async {
            match failed {
                true => tokio::time::sleep(AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = news.next() => {}
            changed = pods.changed() => if changed.is_err() { return },
            () = renewal, if !failed => {}
            () = retry => {}
        }
        let pod = pods.borrow_and_update().clone();
        let facts = facts.borrow().clone();
        let ingredients =
            Ingredients { options: &options, sources: &sources, tokens: &tokens, facts };
        let result = set_up(&pod, &ingredients).await;
        failed = result.is_err();
        if let Err(error) = result {
            debug!(pod = %uid, %error, "volumes could not be brought up to date");
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
