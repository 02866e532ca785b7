//! Warnings about files in volumes that hide each other.

use std::collections::BTreeMap;

use super::{MOST, Warnings};
use crate::rules::at::At;
use crate::view::View;

/// Sources of files, and the field with their name.
const SOURCES: [(&str, &str, &str); 3] = [
    ("configMap", "ConfigMap", "name"),
    ("secret", "Secret", "secretName"),
    ("downwardAPI", "DownwardAPI", ""),
];

/// Warns of the volumes in which one file or directory is in the way of another.
pub(super) fn overlapping(spec: &At<'_>, said: &mut Warnings) {
    for volume in spec.each("volumes") {
        let name = meta::quote(volume.str_of("name"));
        for (source, title, field) in SOURCES {
            let Some(files) = volume.some(source) else { continue };
            let mut seen = Seen::default();
            for file in files.each("items") {
                seen.add(&name, &titled(title, &files, field), "", file.str_of("path"), said);
            }
        }
        if let Some(projected) = volume.some("projected") {
            self::projected(&name, &projected, said);
        }
    }
}

fn titled(title: &str, source: &At<'_>, field: &str) -> String {
    match field {
        "" => title.to_owned(),
        field => format!("{title} {}", meta::quote(source.str_of(field))),
    }
}

fn projected(name: &str, projected: &At<'_>, said: &mut Warnings) {
    let mut seen = Seen::default();
    for source in projected.each("sources") {
        if source.value.as_object().is_none_or(|fields| fields.values().all(|v| v.is_null())) {
            said.push(format!("volume {name} (Projected) has no sources provided"));
            continue;
        }
        let listed = SOURCES.iter().find(|(field, ..)| source.at(field).has("items"));
        if let Some((field, title, named)) = listed {
            let files = source.field(field);
            let title = titled(title, &files, if named.is_empty() { "" } else { "name" });
            for file in files.each("items") {
                seen.add(name, "Projected", &title, file.str_of("path"), said);
            }
        } else if let Some(token) = source.some("serviceAccountToken") {
            seen.add(name, "Projected", "ServiceAccountToken", token.str_of("path"), said);
        }
    }
}

/// The paths of a volume so far, with where they come from and in what order.
#[derive(Default)]
struct Seen {
    paths: BTreeMap<String, Vec<(usize, String)>>,
    count: usize,
}

impl Seen {
    fn add(&mut self, volume: &str, kind: &str, source: &str, path: &str, said: &mut Warnings) {
        let path = path.trim_end_matches('/');
        let show = |path: &str, source: &str| match source {
            "" => meta::quote(path),
            source => format!("{} ({source})", meta::quote(path)),
        };
        if !path.is_empty() && said.len() < MOST {
            let mut hits = self.around(path);
            hits.sort_unstable();
            for (_, hit, from) in hits.into_iter().take(MOST) {
                said.push(format!(
                    "volume {volume} ({kind}): overlapping paths: {} with {}",
                    show(path, source),
                    show(hit, from)
                ));
            }
        }
        self.paths.entry(path.to_owned()).or_default().push((self.count, source.to_owned()));
        self.count += 1;
    }

    /// The paths that are this one, above it or below it.
    fn around(&self, path: &str) -> Vec<(usize, &str, &str)> {
        let above = path.match_indices('/').map(|(end, _)| &path[..end]).filter(|p| !p.is_empty());
        let exact = above.chain([path]).filter_map(|path| self.paths.get_key_value(path));
        let prefix = format!("{path}/");
        let below = self.paths.range(prefix.clone()..).take_while(|(p, _)| p.starts_with(&prefix));
        let all = exact.chain(below.take(MOST));
        all.flat_map(|(path, from)| {
            from.iter().take(MOST).map(|(at, from)| (*at, path.as_str(), from.as_str()))
        })
        .collect()
    }
}
