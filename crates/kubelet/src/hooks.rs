//! Lifecycle hooks: postStart and preStop handlers. Knows nothing of when they run.

use std::{sync::Arc, time::Duration};

use cri::Runtime;
use k8s_openapi::api::core::v1 as api;
use tokio::time::{sleep, timeout};

use crate::http_get;

/// Runs a handler for at most `limit`.
///
/// # Errors
/// What went wrong, in a sentence.
pub(crate) async fn run(
    runtime: &Arc<dyn Runtime>,
    handler: &api::LifecycleHandler,
    container: &api::Container,
    id: &str,
    host: &str,
    limit: Duration,
) -> Result<(), String> {
    let work = async {
        if let Some(action) = &handler.exec {
            let command = action.command.clone().unwrap_or_default();
            let shown = command.join(" ");
            let answer = runtime
                .exec_sync(id.to_owned(), command, limit)
                .await
                .map_err(|e| e.to_string())?;
            if answer.exit_code == 0 {
                return Ok(());
            }
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(1024);
            let output = String::from_utf8_lossy(&output);
            Err(format!("command '{shown}' exited with {}: {output}", answer.exit_code))
        } else if let Some(action) = &handler.http_get {
            let agent = "kube-lifecycle/1.36";
            let answer = http_get::get(action, container, host, agent, limit).await?;
            if (200..400).contains(&answer.status) {
                Ok(())
            } else {
                Err(format!("answered {}", answer.status))
            }
        } else if let Some(action) = &handler.sleep {
            sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
            Ok(())
        } else {
            Ok(())
        }
    };
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(format!("timed out after {}s", limit.as_secs())))
}
