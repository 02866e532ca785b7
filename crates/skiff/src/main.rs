//! skiff

fn main() {}
