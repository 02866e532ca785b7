//! A write load on any store, for benchmarks.
