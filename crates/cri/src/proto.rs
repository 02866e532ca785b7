//! The generated bindings, kept behind one door so that lints stay on everywhere else.

/// Container Runtime Interface, version 1. Field meanings are those of the CRI specification (`cri-api`).
#[expect(
    missing_docs,
    unused_qualifications,
    reason = "generated; the CRI specification describes the fields"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// containerd's event service.
#[expect(unreachable_pub, unused_qualifications, reason = "generated; used inside this crate only")]
pub(crate) mod events {
    tonic::include_proto!("containerd.services.events.v1");
}
