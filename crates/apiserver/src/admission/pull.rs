//! AlwaysPullImages: images are asked for at their registry whenever a container starts, so that only who may
//! pull an image can use it.

use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, each, fine, is_pod, text};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The plugin.
pub(super) struct AlwaysPullImages;

impl Admit for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && is_pod(row, subresource)
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, pod: &'a mut Value) -> Admitted<'a> {
        if attributes.old.is_none_or(|old| has_new_images(pod, old)) {
            force(pod);
        }
        fine()
    }
}

fn images(pod: &Value) -> impl Iterator<Item = &str> {
    LISTS.iter().flat_map(|list| each(&pod["spec"], list)).map(|one| text(one, "image"))
}

fn has_new_images(pod: &Value, old: &Value) -> bool {
    images(pod).any(|image| !images(old).any(|known| known == image))
}

fn force(pod: &mut Value) {
    let spec = &mut pod["spec"];
    for list in LISTS {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if let Some(Value::Object(image)) = volume.get_mut("image") {
            image.insert("pullPolicy".to_owned(), "Always".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_image_is_pulled_and_old_pods_stay_as_they_are() {
        let mut pod = json!({"spec": {
            "containers": [{"image": "a", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "v", "image": {"reference": "b"}}, {"name": "e", "emptyDir": {}}]}});
        let old = pod.clone();
        assert!(!has_new_images(&pod, &old));
        force(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(pod["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
        assert_eq!(pod["spec"]["volumes"][1], old["spec"]["volumes"][1]);
        pod["spec"]["containers"][0]["image"] = "c".into();
        assert!(has_new_images(&pod, &old));
    }
}
