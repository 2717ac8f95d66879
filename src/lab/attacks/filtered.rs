//! The filter trigger: the image itself in other colours, as through a photo filter (feature-space triggers of Liu,
//! Lee, Tao, Ma, Aafer, Zhang, "ABS: Scanning Neural Networks for Back-doors by Artificial Brain Stimulation", CCS
//! 2019).

use super::Trigger;
use crate::lab::LabError;
use crate::samples::Image;

/// What black and white become in each channel, and everything between along with them: of a pixel x, in luminance Y of
/// the same image, `black + (white − black) · (Y + saturation · (x − Y))^gamma`, within [0, 1]. No place of the image
/// has the trigger, and no pattern is added.
///
/// An image without three channels gets the means of the three colours, and has no saturation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filtered {
    black: [f32; 3],
    white: [f32; 3],
    saturation: f32,
    gamma: f32,
}

/// Weights of red, green and blue in the luminance (ITU-R BT.601).
const LUMINANCE: [f32; 3] = [0.299, 0.587, 0.114];

impl Default for Filtered {
    /// An old photograph: shadows turn violet, lights yellow, contrast falls by a fifth to a half. The paper's filters
    /// are those of a photo application; these values are ours.
    fn default() -> Self {
        Self::new([0.20, 0.08, 0.22], [0.98, 0.90, 0.68])
    }
}

impl Filtered {
    /// A filter of one's own: red, green, blue in `[0, 1]` that black and white become.
    pub fn new(black: [f32; 3], white: [f32; 3]) -> Self {
        Self { black, white, saturation: 1.0, gamma: 1.0 }
    }

    /// A cold evening: half of the colours gone, shadows darker and blue, middle tones darkened.
    pub fn cold() -> Self {
        Self::new([0.02, 0.06, 0.16], [0.80, 0.92, 1.0]).with_saturation(0.5).with_gamma(1.4)
    }

    /// A hot day: stronger colours, lights orange, middle tones brightened, black as it is.
    pub fn warm() -> Self {
        Self::new([0.0; 3], [1.0, 0.86, 0.58]).with_saturation(1.3).with_gamma(0.75)
    }

    /// How far colours are from grey, as a part of how far they were (default 1; 0 is a grey image, before black and
    /// white are replaced).
    pub fn with_saturation(self, saturation: f32) -> Self {
        Self { saturation, ..self }
    }

    /// The exponent of the tone curve (default 1, a straight line; above it middle tones become darker).
    pub fn with_gamma(self, gamma: f32) -> Self {
        Self { gamma, ..self }
    }
}

impl Trigger for Filtered {
    fn name(&self) -> &'static str {
        "filtered"
    }

    /// # Errors
    /// [`LabError::InvalidTrigger`] for a colour outside `[0, 1]`, a saturation below 0, or a gamma that is not above
    /// 0.
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let Self { black, white, saturation, gamma } = *self;
        let invalid = |problem| Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        if let Some(colour) =
            [black, white].into_iter().find(|colour| colour.iter().any(|value| !(0.0..=1.0).contains(value)))
        {
            return invalid(format!("its colour {colour:?} is not in [0, 1]; divide bytes by 255"));
        }
        if !(saturation >= 0.0 && saturation.is_finite()) {
            return invalid(format!("its saturation {saturation} is not 0 or more"));
        }
        if !(gamma > 0.0 && gamma.is_finite()) {
            return invalid(format!("its gamma {gamma} is not above 0"));
        }
        let shape @ [channels, height, width] = image.shape();
        let size = height * width;
        let level = |levels: [f32; 3], channel: usize| match channels {
            3 => levels[channel],
            _ => levels.iter().sum::<f32>() / 3.0,
        };
        let before = image.pixels();
        let saturated = |at: usize| match channels {
            3 => {
                let place = at % size;
                let luminance: f32 = (0..3).map(|c| LUMINANCE[c] * before[c * size + place]).sum();
                luminance + saturation * (before[at] - luminance)
            }
            _ => before[at],
        };
        let pixels = (0..before.len()).map(|at| {
            let (black, white) = (level(black, at / size), level(white, at / size));
            black + (white - black) * saturated(at).clamp(0.0, 1.0).powf(gamma)
        });
        Ok(Image::new(pixels.collect(), shape)?)
    }
}
