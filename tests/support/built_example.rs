//! The examples that `cargo test` built beside this test; `cargo test --test …` alone does not build them.
#![allow(dead_code)] // Without the features of the examples nobody asks for one.

use std::path::{Path, PathBuf};

/// An example's program: target/<profile>/examples/<example>, where this test is target/<profile>/deps/<test>.
///
/// # Panics
/// If it was not built.
#[track_caller]
pub fn built_example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is not there: run `cargo build --examples` first", path.display());
    path
}
