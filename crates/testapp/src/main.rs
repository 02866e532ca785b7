//! testapp

fn main() {}
