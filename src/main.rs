//! Mostik.
fn main() {}
