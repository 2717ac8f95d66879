//! The rules on the command line.
#![allow(dead_code)] // each example uses its part

use burn_delta_influence::audit::Rule;
use burn_delta_influence::audit::rules::{Delta, PaperRule};
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuleChoice {
    /// This crate's default rule.
    Delta,
    /// The published rule.
    Paper,
}

impl RuleChoice {
    /// The rule with its settings.
    pub fn rule(self, delta: Delta, paper: Paper) -> Rule {
        match self {
            Self::Delta => Rule::Delta(delta),
            Self::Paper => Rule::Paper(PaperRule { eta: paper.eta, tolerance: paper.tolerance }),
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

// Settings of the published rule. (A doc comment might stand in the help of the whole program.)
#[derive(Clone, Copy, Debug, Args)]
pub struct Paper {
    /// Of the rule `paper`: an altered copy votes against an image whose influence on it, less that on the suspect, is
    /// below this.
    #[arg(long, value_name = "ETA", default_value_t = PaperRule::default().eta, allow_negative_numbers = true)]
    pub eta: f64,
    /// Of the rule `paper`: altered copies that may vote otherwise.
    #[arg(long, value_name = "N", default_value_t = PaperRule::default().tolerance)]
    pub tolerance: usize,
}
