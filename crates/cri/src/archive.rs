//! OCI image archives.
