//! Records that servers share beside the store's content, such as the keys they
//! need before they can open it. Knows nothing of what they mean.

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    coding::meta_key,
    members::{Failure, Members},
    options::EtcdOptions,
    proto::{self, TxnRequest},
};
use crate::OpenError;

/// Small records in etcd that are written once and read by every server.
pub struct SharedRecords {
    members: Members,
    options: EtcdOptions,
}

impl SharedRecords {
    /// Connects to the etcd that `options` name.
    ///
    /// # Errors
    /// [`OpenError::Endpoint`].
    pub fn connect(options: &EtcdOptions) -> Result<Self, OpenError> {
        Ok(Self { members: Members::new(options)?, options: options.clone() })
    }

    /// The record `name`, if there is one.
    ///
    /// # Errors
    /// [`OpenError::Unreachable`].
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, OpenError> {
        let request = proto::one(meta_key(&self.options.prefix, name));
        let deadline = Instant::now() + self.options.patience;
        let answer = self.members.range(request, deadline).await;
        let answer = answer.map_err(|failure| OpenError::Unreachable(failure.to_string()))?;
        Ok(answer.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Writes the record `name` unless there is one; returns the one that is
    /// there afterwards. Servers that do so at once agree on one.
    ///
    /// # Errors
    /// [`OpenError::Unreachable`].
    pub async fn get_or_create(&self, name: &str, value: Bytes) -> Result<Bytes, OpenError> {
        let key = meta_key(&self.options.prefix, name);
        let deadline = Instant::now() + self.options.patience;
        loop {
            let request = TxnRequest {
                compare: vec![proto::modified_at(key.clone(), 0)],
                success: vec![proto::put_op(key.clone(), value.clone())],
                failure: vec![],
            };
            match self.members.transact(request).await {
                Ok(_) => {}
                Err(Failure::Unclear(_) | Failure::Busy) if Instant::now() < deadline => {
                    sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(failure) => return Err(OpenError::Unreachable(failure.to_string())),
            }
            // Whoever was first: everybody reads the same.
            if let Some(value) = self.get(name).await? {
                return Ok(value);
            }
        }
    }
}
