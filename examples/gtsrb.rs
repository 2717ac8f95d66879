//! GTSRB, the German traffic signs: train, audit, unlearn. The program is that of `image_folder`, which knows GTSRB's
//! layout, with all of its options.
//!
//! ```text
//! cargo run --release --example gtsrb -- --data GTSRB --attack badnet --victim 13 --target 12
//! ```
//! `GTSRB` holds `Train.csv` and `Train/`; whole tracks of pictures are kept for validation.

#[path = "image_folder.rs"]
mod image_folder;

use std::process::ExitCode;

// Where the modules that the examples share look for it.
use image_folder::support;

fn main() -> ExitCode {
    image_folder::main()
}
