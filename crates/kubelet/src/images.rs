//! Finding and pulling the images of containers, by pull policy. Knows nothing of back-off: the pod's machine decides
//! when to try again.

mod credentials;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use client::EventRecorder;
use cri::{ImageReference, Runtime, RuntimeError, v1};
use k8s_openapi::api::core::v1 as api;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::{
    pod::{ImageReady, PullProblem},
    spec::security::ImageUser,
};

/// The images of this node.
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    client: kube::Client,
    permits: Semaphore,
    /// One pull of an image at a time; others of it wait for the result.
    under_way: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

/// For whom an image is wanted.
pub(crate) struct Request<'a> {
    pub(crate) pod: &'a api::Pod,
    pub(crate) container: &'a api::Container,
    pub(crate) recorder: &'a EventRecorder,
    /// The container, as events name it.
    pub(crate) about: &'a api::ObjectReference,
}

impl Images {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, client: kube::Client, max_pulls: usize) -> Self {
        Self {
            runtime,
            client,
            permits: Semaphore::new(max_pulls.max(1)),
            under_way: Mutex::default(),
        }
    }

    /// The container's image, pulled if the policy wants that.
    pub(crate) async fn ensure(&self, request: &Request<'_>) -> Result<ImageReady, PullProblem> {
        let image = request.container.image.clone().unwrap_or_default();
        let (recorder, about) = (request.recorder, request.about);
        let problem = |reason, message| PullProblem { reason, message };
        let name = ImageReference::with_default_tag(&image).map_err(|error| {
            let message = format!("Failed to apply default image tag {image:?}: {error}");
            recorder.warning(about, "InspectFailed", message.clone());
            recorder.warning(about, "Failed", "Error: InvalidImageName");
            problem("InvalidImageName", message)
        })?;
        let present = self.runtime.image_status(name.clone()).await.map_err(|error| {
            let message = format!("Failed to inspect image {image:?}: {error}");
            recorder.warning(about, "InspectFailed", message.clone());
            recorder.warning(about, "Failed", "Error: ImageInspectError");
            problem("ImageInspectError", message)
        })?;
        match (policy(request.container, &name), present) {
            ("Never", None) => {
                let message =
                    format!("Container image {image:?} is not present with pull policy of Never");
                recorder.warning(about, "ErrImageNeverPull", message.clone());
                recorder.warning(about, "Failed", "Error: ErrImageNeverPull");
                Err(problem("ErrImageNeverPull", message))
            }
            ("Never", Some(found)) => {
                recorder.normal(
                    about,
                    "Pulled",
                    format!("Container image {image:?} already present on machine"),
                );
                Ok(ready(&image, &found))
            }
            ("IfNotPresent", Some(found)) => {
                let note = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                recorder.normal(about, "Pulled", note);
                Ok(ready(&image, &found))
            }
            _ => self.pull(request, &image, &name).await,
        }
    }

    async fn pull(
        &self,
        request: &Request<'_>,
        image: &str,
        name: &str,
    ) -> Result<ImageReady, PullProblem> {
        let (recorder, about) = (request.recorder, request.about);
        recorder.normal(about, "Pulling", format!("Pulling image {image:?}"));
        let waiting_since = Instant::now();
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let pulled = match self.permits.acquire().await {
            Ok(_permit) => {
                let since = Instant::now();
                self.pull_once(request.pod, name).await.map(|found| (found, since.elapsed()))
            }
            Err(_) => Err(RuntimeError::Unavailable("shutting down".to_owned())),
        };
        match pulled {
            Ok((found, took)) => {
                let note = format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(took),
                    go_duration(waiting_since.elapsed()),
                    found.size
                );
                recorder.normal(about, "Pulled", note);
                Ok(ready(image, &found))
            }
            Err(error) => {
                recorder.warning(
                    about,
                    "Failed",
                    format!("Failed to pull image {image:?}: {error}"),
                );
                recorder.warning(about, "Failed", "Error: ErrImagePull");
                Err(PullProblem { reason: "ErrImagePull", message: error.to_string() })
            }
        }
    }

    /// Pulls with each credential that fits, the anonymous one last.
    async fn pull_once(&self, pod: &api::Pod, name: &str) -> Result<v1::Image, RuntimeError> {
        let credentials = credentials::of_pod(&self.client, pod, name).await;
        let mut failure = None;
        for auth in credentials.into_iter().map(Some).chain([None]) {
            match self.runtime.pull_image(name.to_owned(), auth).await {
                Ok(_) => {
                    let found = self.runtime.image_status(name.to_owned()).await?;
                    return found.ok_or_else(|| {
                        RuntimeError::NotFound(format!("image {name} vanished after the pull"))
                    });
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| RuntimeError::Unavailable("no attempt was made".to_owned())))
    }

    fn turn(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut under_way = self.under_way.lock();
        under_way.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = under_way.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(AsyncMutex::new(()));
        under_way.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// The user an image runs as.
    pub(crate) async fn user(&self, reference: &str) -> ImageUser {
        match self.runtime.image_status(reference.to_owned()).await {
            Ok(Some(image)) => ImageUser { uid: image.uid.map(|v| v.value), name: image.username },
            _ => ImageUser::default(),
        }
    }
}

/// The pull policy; the API fills it in, this is for objects that come without.
fn policy<'a>(container: &'a api::Container, name: &str) -> &'a str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if name.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

fn ready(name: &str, image: &v1::Image) -> ImageReady {
    let id = image.repo_digests.first().unwrap_or(&image.id).clone();
    ImageReady { name: name.to_owned(), reference: image.id.clone(), id }
}

/// How Go prints a duration: `312ms`, `1.204s`.
fn go_duration(duration: std::time::Duration) -> String {
    if duration.as_secs() == 0 {
        return format!("{}ms", duration.as_millis());
    }
    let millis = format!("{:03}", duration.subsec_millis());
    let fraction = millis.trim_end_matches('0');
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let minutes = if minutes > 0 { format!("{minutes}m") } else { String::new() };
    if fraction.is_empty() {
        format!("{minutes}{seconds}s")
    } else {
        format!("{minutes}{seconds}.{fraction}s")
    }
}
