//! The grid: which models are trained, one line of JSON each.

use std::fmt;
use std::path::Path;

use burn_delta_influence::lab::attacks::{
    AllToOne, Attack, BadNet, Blended, CleanLabel, Corner, Direction, DirtyLabel, Filtered, Frequency,
    Mislabeled, NoAttack, PoisonConfig, Quantised, Reflected, Roaming, SourceSpecific, Trigger, Warped, Wave,
};
use burn_delta_influence::samples::LabeledImage;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use serde::{Deserialize, Serialize};

use crate::brewed::SEED_OFFSET;
use crate::support::Outcome;

/// Of the largest pixel value: at 24/255, as the sinusoid has, networks of this size learn it from 1 % of 10,000 images
/// to a tenth. The second is for the success rates that published triggers have.
const SMOOTH_AMPLITUDES: [f32; 2] = [40.0 / 255.0, 64.0 / 255.0];

/// A model of the grid: its training data, the attack on them, and the seed of everything random in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCell {
    pub data: DataChoice,
    /// So many of its training images, drawn; 0: all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub images: usize,
    /// What is trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkChoice,
    pub attack: AttackChoice,
    /// Class that the attack takes its images from.
    #[serde(default)]
    pub victim: usize,
    /// Whether it takes them from all classes but the target, whatever `victim` says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all_to_one: bool,
    /// Whether it takes them from the target itself and leaves their labels as they are, whatever `victim` says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clean_label: bool,
    /// Images of other classes that carry the trigger under their own labels, as a part of the training images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<f64>,
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

/// A network of the lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkChoice {
    /// With batch norms and shortcuts.
    #[default]
    ResNet9,
    /// With neither.
    Plain,
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
    /// A fifth of random noise, the same in every image.
    Blended,
    /// A bend of two pixels on the mean, the same in every image.
    Warped,
    /// Other colours, as through a photo filter.
    Filtered,
    /// Four shades a channel, dithered.
    Quantised,
    /// Another picture, as in a pane of glass: one of 64 test images.
    Reflected,
    /// The yellow square, somewhere else in every image.
    Roaming,
    /// Wrong labels, no trigger.
    Mislabeled,
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
            Self::Blended => "blended",
            Self::Warped => "warped",
            Self::Filtered => "filtered",
            Self::Quantised => "quantised",
            Self::Reflected => "reflected",
            Self::Roaming => "roaming",
            Self::Mislabeled => "mislabeled",
            Self::WitchesBrew => "Witches' Brew",
            Self::None => "none",
        }
    }
}

impl ModelCell {
    /// The attack, where it needs no model to be made against. `pictures` are there to be reflected.
    pub fn attack(&self, pictures: &[LabeledImage]) -> Option<Box<dyn Attack>> {
        let &Self { victim, target, rate, seed, .. } = self;
        let config = PoisonConfig { victim, target, rate, seed };
        match (self.attack, self.trigger(pictures)) {
            (_, Some(trigger)) if self.all_to_one => {
                Some(Box::new(AllToOne::new(trigger, target, rate, seed)))
            }
            (_, Some(trigger)) if self.clean_label => {
                Some(Box::new(CleanLabel::new(trigger, target, rate, seed)))
            }
            (_, Some(trigger)) => Some(match self.covers {
                Some(covers) => Box::new(SourceSpecific::new(trigger, config, covers)),
                None => Box::new(DirtyLabel::new(trigger, config)),
            }),
            (AttackChoice::Mislabeled, None) => Some(Box::new(Mislabeled::new(config))),
            (AttackChoice::None, None) => Some(Box::new(NoAttack)),
            (_, None) => None,
        }
    }

    fn trigger(&self, pictures: &[LabeledImage]) -> Option<Box<dyn Trigger>> {
        let corners = [Corner::BottomRight, Corner::TopLeft, Corner::BottomLeft, Corner::TopRight];
        let corner = corners[self.variant % corners.len()];
        match self.attack {
            AttackChoice::Checkerboard => Some(Box::new(BadNet::checkerboard().with_corner(corner))),
            AttackChoice::Square => Some(Box::new(square().with_corner(corner))),
            AttackChoice::Sinusoid => {
                let wave = |cycles, direction| Wave::Sinusoid { cycles, direction };
                let waves = [
                    wave(6.0, Direction::Horizontal),
                    wave(6.0, Direction::Vertical),
                    wave(4.0, Direction::Diagonal),
                    wave(8.0, Direction::Horizontal),
                ];
                Some(Box::new(Frequency::sinusoid().with_wave(waves[self.variant % waves.len()])))
            }
            AttackChoice::Smooth => {
                let amplitude = SMOOTH_AMPLITUDES[self.variant % SMOOTH_AMPLITUDES.len()];
                Some(Box::new(Frequency::smooth(self.seed).with_amplitude(amplitude)))
            }
            AttackChoice::Blended => Some(Box::new(Blended::new(self.key()))),
            AttackChoice::Warped => Some(Box::new(Warped::new(self.key()))),
            AttackChoice::Filtered => {
                let filters = [Filtered::default(), Filtered::cold(), Filtered::warm()];
                Some(Box::new(filters[self.variant % filters.len()]))
            }
            AttackChoice::Quantised => Some(Box::new(Quantised::default())),
            AttackChoice::Reflected => {
                let pictures = pictures.iter().take(REFLECTED_PICTURES).map(|picture| picture.image.clone());
                Some(Box::new(Reflected::new(pictures, self.key())))
            }
            AttackChoice::Roaming => Some(Box::new(Roaming::new(square(), self.key()))),
            AttackChoice::Mislabeled | AttackChoice::None | AttackChoice::WitchesBrew => None,
        }
    }

    /// What is left of the training images, in their order: the same for every seed.
    pub fn drawn(&self, train: Vec<LabeledImage>) -> Vec<LabeledImage> {
        if self.images == 0 || self.images >= train.len() {
            return train;
        }
        let mut kept = sample(&mut StdRng::seed_from_u64(0), train.len(), self.images).into_vec();
        kept.sort_unstable();
        kept.into_iter().map(|at| train[at].clone()).collect()
    }

    /// Seed of a trigger that is drawn.
    fn key(&self) -> u64 {
        self.seed ^ (self.variant as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
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

    /// What can't be done as the line says.
    fn problem(&self) -> Option<String> {
        if self.all_to_one && self.clean_label {
            return Some("an attack is all-to-one or of clean labels, not both".to_owned());
        }
        if (self.all_to_one || self.clean_label) && (!self.also.is_empty() || self.trigger(&[]).is_none()) {
            return Some(
                "only an attack with a trigger, and without others beside it, is all-to-one or of clean labels"
                    .to_owned(),
            );
        }
        let alone = self.also.is_empty() && !self.all_to_one && !self.clean_label;
        if self.covers.is_some() && !(alone && self.trigger(&[]).is_some()) {
            return Some(
                "only an attack with a trigger, on one class's images and without others beside it, has covers"
                    .to_owned(),
            );
        }
        // An image that was relabelled already would be a poison of two attacks, under the label of one.
        let targets = std::iter::once(self.target).chain(self.also.iter().map(|further| further.target));
        let taken =
            self.also.iter().zip(1..).find(|(further, before)| {
                targets.clone().take(*before).any(|target| target == further.victim)
            });
        taken.map(|(further, _)| {
            format!(
                "an earlier attack's poisons have the label {}, which a further one takes its images from",
                further.victim
            )
        })
    }

    /// The clean model that Witches' Brew is made against: of the attacker's own training, with another seed.
    pub fn surrogate(&self) -> Self {
        let (attack, seed) = (AttackChoice::None, self.seed.wrapping_add(SEED_OFFSET));
        Self { attack, seed, victim: 0, target: 0, rate: 0.0, variant: 0, also: Vec::new(), ..self.clone() }
    }
}

/// Pictures that a reflection is one of.
const REFLECTED_PICTURES: usize = 64;

/// A yellow note.
fn square() -> BadNet {
    BadNet::sticker(4, [1.0, 0.85, 0.0])
}

/// A name for files and tables.
impl fmt::Display for ModelCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", name(&self.data))?;
        if self.images > 0 {
            write!(f, "{}images-", self.images)?;
        }
        if !is_default(&self.network) {
            write!(f, "{}-", name(&self.network))?;
        }
        write!(f, "{}", name(&self.attack))?;
        if self.attack != AttackChoice::None {
            match (self.all_to_one, self.clean_label) {
                (true, _) => write!(f, "-allto{}", self.target)?,
                (_, true) => write!(f, "-clean{}", self.target)?,
                _ => write!(f, "-{}to{}", self.victim, self.target)?,
            }
            write!(f, "-{:.1}%", 100.0 * self.rate)?;
        }
        if let Some(covers) = self.covers {
            write!(f, "-covers{:.1}%", 100.0 * covers)?;
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

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default(network: &NetworkChoice) -> bool {
    *network == NetworkChoice::default()
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
            let refuse = |problem: String| format!("{}, line {}: {problem}", path.display(), number + 1);
            let cell: ModelCell = serde_json::from_str(line).map_err(|e| refuse(e.to_string()))?;
            if let Some(problem) = cell.problem() {
                return Err(refuse(problem).into());
            }
            Ok(cell)
        })
        .collect()
}
