//! Rows by path, so that a request finds its resource without building keys.

use std::{collections::HashMap, sync::Arc};

use registry::{Row, Rows};

use crate::request::RequestInfo;

/// Rows by `group/version` as it stands in paths, then by plural name.
pub(crate) struct Routes(HashMap<String, HashMap<String, Arc<Row>>>);

impl Routes {
    pub(crate) fn new(rows: &Rows) -> Self {
        let mut routes: HashMap<String, HashMap<String, Arc<Row>>> = HashMap::new();
        for row in rows.iter() {
            let versions = routes.entry(row.api_version()).or_default();
            versions.insert(row.resource.resource.clone(), row.clone());
        }
        Self(routes)
    }

    /// Whether anything is served in the group and version of a path.
    pub(crate) fn serves(&self, info: &RequestInfo) -> bool {
        self.0.contains_key(info.group_version())
    }

    /// The resource a path names.
    pub(crate) fn find(&self, info: &RequestInfo) -> Option<&Arc<Row>> {
        self.0.get(info.group_version())?.get(info.resource())
    }
}
