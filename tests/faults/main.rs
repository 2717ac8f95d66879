//! Whatever can go wrong outside: data, files, disks, killed processes.

#[path = "../support/aloud.rs"]
mod aloud;
#[path = "../support/audits.rs"]
mod audits;
#[path = "../support/backdoored.rs"]
mod backdoored;
#[path = "../support/tiny.rs"]
mod tiny;
#[path = "../support/training.rs"]
mod training;

mod data;
mod disk;
mod files;
mod killed_audit;
mod killed_collecting;
mod killed_writing;
mod sizes;
