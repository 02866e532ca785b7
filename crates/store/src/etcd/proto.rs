//! The generated bindings of etcd's API, and the few shapes of requests that
//! the store sends. Refuses to know who answers.

use bytes::Bytes;

#[expect(unreachable_pub, unused_qualifications, reason = "generated; used inside this crate only")]
mod generated {
    tonic::include_proto!("etcdserverpb");
}

pub(super) use generated::*;

use compare::{CompareResult, CompareTarget, TargetUnion};
use request_op::Request;

/// The answer to a question that only wants to know the current revision.
pub(super) fn count(key: impl Into<Bytes>, end: impl Into<Bytes>) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        range_end: end.into(),
        count_only: true,
        ..RangeRequest::default()
    }
}

/// One key, read linearizably.
pub(super) fn one(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

/// Reads a key within a transaction.
pub(super) fn read_op(key: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::Range(one(key))) }
}

/// Writes a key within a transaction.
pub(super) fn put_op(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::Put(PutRequest { key, value })) }
}

/// Deletes a key within a transaction.
pub(super) fn delete_op(key: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::DeleteRange(DeleteRangeRequest { key })) }
}

/// Holds if the key was last written at `revision`; 0 is a key that is absent.
pub(super) fn modified_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
    }
}

/// Holds if the key exists.
pub(super) fn exists(key: Bytes) -> Compare {
    Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(0)),
    }
}

/// Holds if the key was written so many times since it was created.
pub(super) fn written_times(key: Bytes, version: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key,
        target_union: Some(TargetUnion::Version(version)),
    }
}

impl TxnResponse {
    /// The revision that the answer was given at, or that the writes got.
    pub(super) fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }

    /// What the n-th operation of the transaction read, if it found something.
    pub(super) fn read(&self, index: usize) -> Option<&KeyValue> {
        match self.responses.get(index)?.response.as_ref()? {
            response_op::Response::Range(range) => range.kvs.first(),
            _ => None,
        }
    }
}

impl RangeResponse {
    /// The revision that the answer was given at.
    pub(super) fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }
}
