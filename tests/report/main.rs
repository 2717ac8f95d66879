//! What an audit leaves for people and for machines.

#[path = "../support/audits.rs"]
mod audits;
#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/pages.rs"]
mod pages;
#[path = "../support/tiny.rs"]
mod tiny;

mod command;
mod command_diff;
mod files;
mod gate;
mod html;
mod in_browser;
mod records;
mod sarif;
