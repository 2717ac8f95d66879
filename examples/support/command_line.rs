//! The command line of an example, kept beside its results so that the run can be repeated from its own output.

use std::path::{Path, PathBuf};

use burn_delta_influence::report::save_json;
use clap::{Arg, Command, Parser};
use serde::{Deserialize, Serialize};

use super::Outcome;

const FILE: &str = "command.json";
/// Of a run that takes an earlier one's model: that one's command stays.
pub const FILE_TRAINED: &str = "command-trained.json";
const REPEAT: &str = "--repeat";
/// Options that say one thing together: where one is given again, the other's values of that run go, too.
const TOGETHER: [&str; 2] = ["--suspect", "--suspect-label"];
/// Options that say nothing without an attack.
const OF_ATTACK: [&str; 3] = ["--victim", "--target", "--poison-rate"];
const HELP: &str = "--repeat DIR/command.json, as the first option, repeats the run that left this file; options after it win over \
    those of that run (relative paths are taken from the present folder).";

/// What a run was started with.
#[derive(Debug, Serialize, Deserialize)]
pub struct CommandLine {
    /// Version of the crate.
    version: String,
    example: String,
    arguments: Vec<String>,
}

impl CommandLine {
    /// Writes it beside the results.
    pub fn save(&self, out: &Path) -> Outcome<()> {
        std::fs::create_dir_all(out)?;
        Ok(save_json(out.join(FILE), self)?)
    }

    /// [`save`](Self::save) for a run that takes the model that it finds in the folder.
    pub fn save_trained(&self, out: &Path) -> Outcome<()> {
        Ok(save_json(out.join(FILE_TRAINED), self)?)
    }
}

/// The arguments of this run. Mistakes in them end the program with clap's message and exit code 2.
pub fn parse<A: Parser>(example: &str) -> Outcome<(A, CommandLine)> {
    let mut given = std::env::args_os().skip(1).peekable();
    let mut arguments = Vec::new();
    if given.next_if(|first| first == REPEAT).is_some() {
        let file = PathBuf::from(given.next().ok_or(format!("{REPEAT} needs the {FILE} of an earlier run"))?);
        arguments = repeated(&file, example)?;
    }
    let given = given.map(|argument| {
        argument.into_string().map_err(|argument| {
            format!(
                "the argument {argument:?} is not UTF-8, and {FILE} could not keep it: rename what it names"
            )
        })
    });
    let given: Vec<String> = given.collect::<Result<_, _>>()?;
    let mut arguments = without(arguments, &given, &mut A::command());
    arguments.extend(given);
    let command = A::command().args_override_self(true).after_help(HELP);
    let matches = command.get_matches_from([example.to_owned()].iter().chain(&arguments));
    let parsed = A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok((parsed, CommandLine { version, example: example.to_owned(), arguments }))
}

/// The arguments of an earlier run without those options that are given again, or that can't stand beside a given one.
fn without(earlier: Vec<String>, given: &[String], command: &mut Command) -> Vec<String> {
    command.build();
    let option = |argument: &str| -> Option<&Arg> {
        let (name, _) = argument.split_once('=').unwrap_or((argument, ""));
        let long = name.strip_prefix("--")?;
        command.get_arguments().find(|option| option.get_long() == Some(long))
    };
    let is_of =
        |argument: &str, names: &[&str]| names.contains(&argument.split('=').next().unwrap_or_default());
    let is_replaced = |argument: &str, of: &Arg| {
        given.iter().any(|new| {
            let conflicts = |other: &Arg| {
                let pairs = [(of, other), (other, of)];
                pairs
                    .into_iter()
                    .any(|(a, b)| command.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id()))
            };
            let both = is_of(argument, &TOGETHER) && is_of(new, &TOGETHER);
            option(new).is_some_and(|other| both || other.get_id() == of.get_id() || conflicts(other))
        })
    };
    let is_none = given.windows(2).any(|two| two == ["--attack", "none"])
        || given.iter().any(|one| one == "--attack=none");
    let mut kept = Vec::new();
    let mut earlier = earlier.into_iter().peekable();
    while let Some(argument) = earlier.next() {
        let of = option(&argument);
        // A value that stands by itself goes with its option.
        let has_value = of.is_some_and(|of| of.get_action().takes_values()) && !argument.contains('=');
        let value = if has_value { earlier.next() } else { None };
        let is_idle = is_none && is_of(&argument, &OF_ATTACK);
        if !is_idle && !of.is_some_and(|of| is_replaced(&argument, of)) {
            kept.push(argument);
            kept.extend(value);
        }
    }
    kept
}

fn repeated(file: &Path, example: &str) -> Outcome<Vec<String>> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let earlier: CommandLine =
        serde_json::from_str(&text).map_err(|error| format!("{name} is no {FILE}: {error}"))?;
    if earlier.example != example {
        return Err(format!("{name} is of the example {}: run that one", earlier.example).into());
    }
    if earlier.version != env!("CARGO_PKG_VERSION") {
        eprintln!("{name} is of version {}: its results may differ from this one's", earlier.version);
    }
    // An option of earlier files asked for what is done now unless `--no-recheck` is given.
    Ok(earlier.arguments.into_iter().filter(|argument| argument != "--recheck").collect())
}
