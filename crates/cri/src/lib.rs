//! The container runtime seen from skiff: the [`Runtime`] trait, its gRPC client, image references, and containerd
//! as a supervised process. Knows nothing of pods' API objects, the kubelet or the API server.
//!
//! - [`v1`]: the messages of the Container Runtime Interface.
//! - [`Runtime`]: everything a kubelet asks of a runtime; [`GrpcRuntime`] speaks it over a unix socket.
//! - [`ImageReference`]: parsing and normalising of image names.
//! - [`containerd`]: configuration, supervision, image import and complete removal of a private containerd.

pub mod archive;
pub mod containerd;
mod error;
mod grpc;
mod proto;
mod reference;
mod runtime;

pub use error::RuntimeError;
pub use grpc::GrpcRuntime;
pub use proto::v1;
pub use reference::{ImageReference, InvalidReference};
pub use runtime::{Answer, Runtime, RuntimeEvent, RuntimeEvents};
