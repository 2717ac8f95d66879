//! The filter trigger: the image itself in other colours, as through a photo filter (feature-space triggers of Liu, Lee, Tao, Ma, Aafer,
//! Zhang, "ABS: Scanning Neural Networks for Back-doors by Artificial Brain Stimulation", CCS 2019).

use super::Trigger;
use crate::lab::LabError;
use crate::samples::Image;

/// What black and white become in each channel; everything between goes along in a straight line, `black + (white − black) · x`. No place
/// of the image has the trigger, and no pattern is added.
///
/// An image without three channels gets the means of the three.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filtered {
    black: [f32; 3],
    white: [f32; 3],
}

impl Default for Filtered {
    /// An old photograph: shadows turn violet, lights yellow, contrast falls by a fifth to a half. The paper's filters are those of a
    /// photo application; these values are ours.
    fn default() -> Self {
        Self { black: [0.20, 0.08, 0.22], white: [0.98, 0.90, 0.68] }
    }
}

impl Filtered {
    /// A filter of one's own: red, green, blue in `[0, 1]` that black and white become.
    pub fn new(black: [f32; 3], white: [f32; 3]) -> Self {
        Self { black, white }
    }
}

impl Trigger for Filtered {
    fn name(&self) -> &'static str {
        "filtered"
    }

    /// # Errors
    /// [`LabError::InvalidTrigger`] for a colour outside `[0, 1]`.
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let Self { black, white } = *self;
        if let Some(colour) =
            [black, white].into_iter().find(|colour| colour.iter().any(|value| !(0.0..=1.0).contains(value)))
        {
            let problem = format!("its colour {colour:?} is not in [0, 1]; divide bytes by 255");
            return Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        }
        let shape @ [channels, height, width] = image.shape();
        let level = |levels: [f32; 3], channel: usize| match channels {
            3 => levels[channel],
            _ => levels.iter().sum::<f32>() / 3.0,
        };
        let pixels = image.pixels().iter().enumerate().map(|(at, pixel)| {
            let channel = at / (height * width);
            let (black, white) = (level(black, channel), level(white, channel));
            black + (white - black) * pixel
        });
        Ok(Image::new(pixels.collect(), shape)?)
    }
}
