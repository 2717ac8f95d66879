//! What the targets share: a place for files, a watch over memory, JSON that is edited as a tree, and seeds.

mod json;
mod memory;
pub mod net;
mod pack;
mod tensor_file;
mod values;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use json::edited;
pub use memory::within;
pub use pack::{pack_file, pack_text};
pub use tensor_file::{tensor_file, tensor_text};
pub use values::edited_values;

/// A folder in memory of this process's own. libFuzzer ends its process without a word to anyone, so what is left of
/// processes that are gone is removed by the next one.
pub fn scratch() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let root = root.join("burn-delta-influence-fuzz");
        for old in fs::read_dir(&root).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(old.file_name()).exists() {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        let folder = root.join(std::process::id().to_string());
        fs::create_dir_all(&folder).expect("a folder for files");
        folder
    })
}

/// A file in [`scratch`] with this content; missing folders are made.
pub fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = scratch().join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for files");
    fs::write(&path, content).expect("a file");
    path
}

/// An error must say which file it is about.
#[track_caller]
pub fn names(error: &impl std::fmt::Display, path: &Path) {
    let (said, name) = (error.to_string(), path.file_name().unwrap_or_default().to_string_lossy());
    assert!(said.contains(&*name), "the error does not name {name}: {said}");
}

/// With `FUZZ_SEEDS` set, writes the seeds there in place of fuzzing.
pub fn write_seeds(seeds: impl FnOnce() -> Vec<(&'static str, Vec<u8>)>) {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else { return };
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).expect("the corpus' folder");
    for (name, seed) in seeds() {
        fs::write(folder.join(name), seed).expect("a seed");
    }
    std::process::exit(0);
}

/// The parts of an input, which are separated by a zero byte: `N` of them, the last one with whatever it holds.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}
