//! The command `apiproxyd`.

fn main() {}
