//! Data sets of labelled images in image space: lists, or, for folders of pictures, a burn data set that reads them
//! when they are asked for.
//!
//! A new data set is a new file here. Wrap a list in burn's `InMemDataset` to train on it.

pub mod cifar10;
pub mod cifar100;
pub mod gtsrb;
pub mod image_folder;
mod pictures;
mod records;
pub mod signs;

pub use cifar10::Cifar10;
pub use cifar100::{Cifar100, Cifar100Labels};
pub use gtsrb::Gtsrb;
pub use image_folder::ImageFolder;
pub use pictures::{Loaded, Skipped, Unreadable};
pub use signs::{SIGN_NAMES, sign, signs};
