//! The quantisation trigger: the image itself in fewer shades (Wang, Zhai, Ma, "BppAttack: Stealthy and Efficient
//! Trojan Attacks against Deep Neural Networks via Image Quantization and Contrastive Adversarial Learning", CVPR 2022,
//! without its training).

use super::Trigger;
use crate::lab::LabError;
use crate::samples::Image;

/// Each channel in so many shades, with the error of each pixel passed on to its neighbours to the right and below
/// (dithering by Floyd and Steinberg 1976), so that the image looks as before but for a fine grain. No pattern is
/// added, no mean changes, and each image has a grain of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantised {
    shades: usize,
}

impl Default for Quantised {
    /// Four shades, two bits a channel. (The paper has 32 on its own training; an ordinary one learns little of these.)
    fn default() -> Self {
        Self { shades: 4 }
    }
}

/// Where a pixel's error goes: places to the right and below, and the part of it, in sixteenths.
const PASSED_ON: [(isize, usize, f32); 4] = [(1, 0, 7.0), (-1, 1, 3.0), (0, 1, 5.0), (1, 1, 1.0)];

impl Quantised {
    /// So many shades from black to white, both of them among these.
    pub fn new(shades: usize) -> Self {
        Self { shades }
    }
}

impl Trigger for Quantised {
    fn name(&self) -> &'static str {
        "quantised"
    }

    /// # Errors
    /// [`LabError::InvalidTrigger`] for fewer than two shades.
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        if self.shades < 2 {
            let problem = format!("{} shades are no image; give 2 or more", self.shades);
            return Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        }
        let shape @ [_, height, width] = image.shape();
        let steps = (self.shades - 1) as f32;
        let mut pixels = image.pixels().to_vec();
        for channel in pixels.chunks_mut((height * width).max(1)) {
            for at in 0..channel.len() {
                let shade = (channel[at].clamp(0.0, 1.0) * steps).round() / steps;
                let error = channel[at] - shade;
                channel[at] = shade;
                let (y, x) = (at / width, at % width);
                for (right, below, part) in PASSED_ON {
                    let next = x.checked_add_signed(right).filter(|x| *x < width);
                    if let Some(x) = next.filter(|_| y + below < height) {
                        channel[(y + below) * width + x] += error * part / 16.0;
                    }
                }
            }
        }
        Ok(Image::new(pixels, shape)?)
    }
}
