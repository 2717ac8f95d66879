//! Folders of golden values: a manifest, and for every case what the reference computed, in f64.
//!
//! `../shared/golden` beside the crate (`DELTA_INFLUENCE_SHARED` names another `shared`), and every folder that
//! `DELTA_INFLUENCE_GOLDEN` lists as paths are listed (`a:b`). Three families of networks are known: see [`Network`].

mod case;
mod network;
mod report;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::aloud::say;

pub use case::Case;
pub use network::Network;
pub use report::{Errors, Report};
pub use settings::Settings;

static SAID: Once = Once::new();

/// All cases of all folders. Says so, loudly, if the shared folder is not there.
///
/// # Panics
/// If a folder that is there, or that the environment lists, has no manifest, or no case in it.
pub fn cases() -> Vec<Case> {
    let shared = match std::env::var_os("DELTA_INFLUENCE_SHARED") {
        Some(shared) => PathBuf::from(shared),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
    };
    let shared = shared.join("golden");
    let mut cases = Vec::new();
    match shared.is_dir() {
        true => cases.extend(read(&shared)),
        false => SAID.call_once(|| {
            say(&format!("PARITY NOT CHECKED: no golden values in {}", shared.display()));
        }),
    }
    let named = std::env::var_os("DELTA_INFLUENCE_GOLDEN").unwrap_or_default();
    for folder in std::env::split_paths(&named).filter(|folder| !folder.as_os_str().is_empty()) {
        cases.extend(read(&folder));
    }
    cases
}

fn read(folder: &Path) -> Vec<Case> {
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let manifest: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cases = manifest["cases"].as_object().expect("the manifest's cases");
    // Every test loops over them: over none it would pass.
    assert!(!cases.is_empty(), "{} has no cases", path.display());
    cases.iter().map(|(name, entry)| Case::read(folder, name, entry)).collect()
}
