//! Nodes: a kubelet registers with its status, and its status updates may carry metadata.

use serde_json::Value;

use super::{Strategy, generic};
use crate::request::UserInfo;

/// `v1 Node`.
#[derive(Debug)]
pub(super) struct Node;

impl Strategy for Node {
    fn prepare_create(&self, _: &mut Value, _: &UserInfo, _: bool) {}

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        generic::keep_all_but_status(object, old);
    }
}
