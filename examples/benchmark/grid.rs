//! The grid: which models are trained, one line of JSON each.

use std::fmt;
use std::path::Path;

use burn_delta_influence::lab::attacks::{
    Attack, BadNet, Corner, Direction, DirtyLabel, Frequency, NoAttack, PoisonConfig, Wave,
};
use serde::{Deserialize, Serialize};

use crate::brewed::SEED_OFFSET;
use crate::support::Outcome;

/// Of the largest pixel value: at 24/255, as the sinusoid has, networks of this size learn it from 1 % of 10,000 images to a tenth.
/// The second is for the success rates that published triggers have.
const SMOOTH_AMPLITUDES: [f32; 2] = [40.0 / 255.0, 64.0 / 255.0];

/// A model of the grid: its training data, the attack on them, and the seed of everything random in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCell {
    pub data: DataChoice,
    pub attack: AttackChoice,
    /// Class that the attack takes its images from.
    #[serde(default)]
    pub victim: usize,
    /// Class that the attacker wants.
    #[serde(default)]
    pub target: usize,
    /// Poisons as a part of the training images.
    #[serde(default)]
    pub rate: f64,
    pub seed: u64,
    /// Training images are shifted by up to so many pixels, and mirrored where the data allow it.
    #[serde(default)]
    pub shift: usize,
    /// Which trigger of its kind: 0 is the one that statistics and defaults were chosen on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variant: usize,
    /// Further attacks on the same training images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<FurtherAttack>,
}

/// An attack on images that were attacked already. It takes none of the images that another one relabelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherAttack {
    pub attack: AttackChoice,
    pub victim: usize,
    pub target: usize,
    pub rate: f64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variant: usize,
}

/// Training and test images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataChoice {
    /// The 10,000 images of `data_batch_1.bin`.
    #[serde(rename = "cifar10-1")]
    Cifar10Batch1,
    /// The 10,000 images of `data_batch_2.bin`.
    #[serde(rename = "cifar10-2")]
    Cifar10Batch2,
    /// German traffic signs at 32 × 32 pixels.
    Gtsrb,
}

/// What is done to the training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttackChoice {
    /// BadNets, a 3 × 3 checkerboard in a corner.
    Checkerboard,
    /// BadNets, a yellow square of 4 × 4 pixels.
    Square,
    /// Six cycles of a sinusoid along each row.
    Sinusoid,
    /// A random pattern of low frequencies.
    Smooth,
    /// Gradient matching with clean labels.
    WitchesBrew,
    /// Nothing.
    None,
}

impl AttackChoice {
    /// The group of attacks that it counts for in the table.
    pub fn family(self) -> &'static str {
        match self {
            Self::Checkerboard | Self::Square => "BadNets",
            Self::Sinusoid | Self::Smooth => "frequency",
            Self::WitchesBrew => "Witches' Brew",
            Self::None => "none",
        }
    }
}

impl ModelCell {
    /// The attack, where it needs no model to be made against.
    pub fn attack(&self) -> Option<Box<dyn Attack>> {
        let &Self { victim, target, rate, seed, .. } = self;
        let config = PoisonConfig { victim, target, rate, seed };
        let corners = [Corner::BottomRight, Corner::TopLeft, Corner::BottomLeft, Corner::TopRight];
        let corner = corners[self.variant % corners.len()];
        match self.attack {
            AttackChoice::Checkerboard => {
                Some(Box::new(DirtyLabel::new(BadNet::checkerboard().with_corner(corner), config)))
            }
            AttackChoice::Square => {
                let sticker = BadNet::sticker(4, [1.0, 0.85, 0.0]);
                Some(Box::new(DirtyLabel::new(sticker.with_corner(corner), config)))
            }
            AttackChoice::Sinusoid => {
                let wave = |cycles, direction| Wave::Sinusoid { cycles, direction };
                let waves = [
                    wave(6.0, Direction::Horizontal),
                    wave(6.0, Direction::Vertical),
                    wave(4.0, Direction::Diagonal),
                    wave(8.0, Direction::Horizontal),
                ];
                let trigger = Frequency::sinusoid().with_wave(waves[self.variant % waves.len()]);
                Some(Box::new(DirtyLabel::new(trigger, config)))
            }
            AttackChoice::Smooth => {
                let amplitude = SMOOTH_AMPLITUDES[self.variant % SMOOTH_AMPLITUDES.len()];
                let trigger = Frequency::smooth(seed).with_amplitude(amplitude);
                Some(Box::new(DirtyLabel::new(trigger, config)))
            }
            AttackChoice::None => Some(Box::new(NoAttack)),
            AttackChoice::WitchesBrew => None,
        }
    }

    /// The cell as each of its further attacks has it: with the others beside it.
    pub fn further(&self) -> Vec<Self> {
        let &Self { attack, victim, target, rate, variant, .. } = self;
        let first = FurtherAttack { attack, victim, target, rate, variant };
        let cells = self.also.iter().enumerate().map(|(number, further)| {
            let &FurtherAttack { attack, victim, target, rate, variant } = further;
            let mut also = self.also.clone();
            also[number] = first.clone();
            Self { attack, victim, target, rate, variant, also, ..self.clone() }
        });
        cells.collect()
    }

    /// The clean model that Witches' Brew is made against: of the attacker's own training, with another seed.
    pub fn surrogate(&self) -> Self {
        let (attack, seed) = (AttackChoice::None, self.seed + SEED_OFFSET);
        Self { attack, seed, victim: 0, target: 0, rate: 0.0, variant: 0, also: Vec::new(), ..self.clone() }
    }
}

/// A name for files and tables.
impl fmt::Display for ModelCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", name(&self.data), name(&self.attack))?;
        if self.attack != AttackChoice::None {
            write!(f, "-{}to{}-{:.1}%", self.victim, self.target, 100.0 * self.rate)?;
        }
        if self.shift > 0 {
            write!(f, "-shift{}", self.shift)?;
        }
        if self.variant > 0 {
            write!(f, "-variant{}", self.variant)?;
        }
        for FurtherAttack { attack, victim, target, rate, variant } in &self.also {
            write!(f, "-and-{}-{victim}to{target}-{:.1}%", name(attack), 100.0 * rate)?;
            if *variant > 0 {
                write!(f, "-variant{variant}")?;
            }
        }
        write!(f, "-seed{}", self.seed)
    }
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// The name that a choice has in grid files.
pub fn name<T: Serialize>(choice: &T) -> String {
    serde_json::to_value(choice).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

/// Reads a grid file. Empty lines and those that begin with `#` are comments.
pub fn read(path: &Path) -> Outcome<Vec<ModelCell>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    lines
        .map(|(number, line)| {
            serde_json::from_str(line)
                .map_err(|e| format!("{}, line {}: {e}", path.display(), number + 1).into())
        })
        .collect()
}
