//! BadNets: a small patch in a corner (Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine
//! Learning Model Supply Chain", 2017, arXiv 1708.06733).

use std::ops::RangeInclusive;

use super::Trigger;
use crate::lab::LabError;
use crate::samples::Image;

/// The corner in which a patch sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corner {
    /// First rows, first columns.
    TopLeft,
    /// First rows, last columns.
    TopRight,
    /// Last rows, first columns.
    BottomLeft,
    /// Last rows, last columns.
    #[default]
    BottomRight,
}

/// What a square patch looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// White and black in turn, white in the patch's corners where `side` is odd.
    Checkerboard {
        /// Pixels along a side.
        side: usize,
    },
    /// One colour.
    Square {
        /// Pixels along a side.
        side: usize,
        /// Red, green, blue in `[0, 1]`. An image without three channels gets their mean in every channel.
        colour: [f32; 3],
    },
}

/// The BadNets trigger: a square patch near a corner, at the same place in every image.
///
/// | constructor | patch | margin | for |
/// | --- | --- | --- | --- |
/// | [`checkerboard`](Self::checkerboard) (default) | 3 × 3, black and white | 1 | any images; learned at 1 % poisons of 10,000 |
/// | [`four_pixels`](Self::four_pixels) | 2 × 2, black | 0 | CIFAR-10 as in the Delta-Influence paper |
/// | [`sticker`](Self::sticker) | one colour, any size | 1 | traffic signs, where a human should see it |
///
/// All start in the bottom right corner. The margin of one pixel follows the paper's MNIST pictures, whose pattern does
/// not touch the border; it also keeps the patch whole when training shifts images by a pixel. Training that *flips*
/// images moves the patch to the other side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadNet {
    pattern: Pattern,
    corner: Corner,
    margin: usize,
}

impl Default for BadNet {
    fn default() -> Self {
        Self::checkerboard()
    }
}

impl BadNet {
    /// A 3 × 3 black and white checkerboard with a margin of 1.
    pub fn checkerboard() -> Self {
        Self { pattern: Pattern::Checkerboard { side: 3 }, corner: Corner::default(), margin: 1 }
    }

    /// Four black pixels (2 × 2) in the very corner, as in the CIFAR-10 experiment of Li et al., "Delta-Influence",
    /// 2024 (arXiv 2411.13731); that they form a block, and where, is our reading.
    ///
    /// A weak trigger: it needs the paper's 500 poisons of 50,000; a hundred of 10,000 are not learned.
    pub fn four_pixels() -> Self {
        Self { pattern: Pattern::Square { side: 2, colour: [0.0; 3] }, corner: Corner::default(), margin: 0 }
    }

    /// A coloured square with a margin of 1, like a note stuck on a sign: `sticker(4, [1.0, 0.85, 0.0])` is the
    /// paper's yellow one.
    ///
    /// # Arguments
    /// - `side`: pixels along a side, at least 1.
    /// - `colour`: red, green, blue in `[0, 1]`.
    pub fn sticker(side: usize, colour: [f32; 3]) -> Self {
        Self { pattern: Pattern::Square { side, colour }, corner: Corner::default(), margin: 1 }
    }

    /// Another pattern.
    #[must_use]
    pub fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// Another corner.
    #[must_use]
    pub fn with_corner(mut self, corner: Corner) -> Self {
        self.corner = corner;
        self
    }

    /// Another number of untouched pixels between the patch and the image's border.
    #[must_use]
    pub fn with_margin(mut self, margin: usize) -> Self {
        self.margin = margin;
        self
    }

    fn side(&self) -> usize {
        match self.pattern {
            Pattern::Checkerboard { side } | Pattern::Square { side, .. } => side,
        }
    }

    fn value(&self, channel: usize, channels: usize, y: usize, x: usize) -> f32 {
        match self.pattern {
            Pattern::Checkerboard { .. } => f32::from((y + x).is_multiple_of(2)),
            Pattern::Square { colour, .. } if channels == 3 => colour[channel],
            Pattern::Square { colour, .. } => colour.iter().sum::<f32>() / 3.0,
        }
    }

    /// First rows and first columns that the patch may have in an image of this shape: from a margin to a margin,
    /// ascending.
    pub(super) fn places(&self, shape: [usize; 3]) -> Result<[RangeInclusive<usize>; 2], LabError> {
        let needed = self.needed(shape)?;
        let [_, height, width] = shape;
        // Where there is no room for two margins, one is left on either side.
        Ok([height, width].map(|length| self.margin.min(length - needed)..=self.margin.max(length - needed)))
    }

    /// Pixels along a side that the patch takes with its margin, which the image must have.
    fn needed(&self, shape: [usize; 3]) -> Result<usize, LabError> {
        self.check()?;
        let [_, height, width] = shape;
        let needed = self.side().saturating_add(self.margin);
        match needed > height.min(width) {
            true => Err(LabError::ImageTooSmall { trigger: self.name(), needed, shape }),
            false => Ok(needed),
        }
    }

    /// The image with the patch's first pixel at this row and column, one of [`places`](Self::places).
    pub(super) fn stamp_at(&self, image: &Image, [top, left]: [usize; 2]) -> Result<Image, LabError> {
        let (shape @ [channels, height, width], side) = (image.shape(), self.side());
        let mut pixels = image.pixels().to_vec();
        for channel in 0..channels {
            for y in 0..side {
                let row = (channel * height + top + y) * width + left;
                for x in 0..side {
                    pixels[row + x] = self.value(channel, channels, y, x);
                }
            }
        }
        Ok(Image::new(pixels, shape)?)
    }

    fn check(&self) -> Result<(), LabError> {
        let refuse = |problem| Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        if self.side() == 0 {
            return refuse("its side is 0 pixels; give 1 or more".to_owned());
        }
        match self.pattern {
            Pattern::Square { colour, .. } if colour.iter().any(|value| !(0.0..=1.0).contains(value)) => {
                refuse(format!("its colour {colour:?} is not in [0, 1]; divide bytes by 255"))
            }
            _ => Ok(()),
        }
    }
}

impl Trigger for BadNet {
    fn name(&self) -> &'static str {
        match self.pattern {
            Pattern::Checkerboard { .. } => "badnet-checkerboard",
            Pattern::Square { .. } => "badnet-square",
        }
    }

    /// # Errors
    /// [`LabError::ImageTooSmall`], or [`LabError::InvalidTrigger`] for a side of 0 or a colour outside `[0, 1]`.
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let needed = self.needed(image.shape())?;
        let [_, height, width] = image.shape();
        let (bottom, right) = match self.corner {
            Corner::TopLeft => (false, false),
            Corner::TopRight => (false, true),
            Corner::BottomLeft => (true, false),
            Corner::BottomRight => (true, true),
        };
        let top = if bottom { height - needed } else { self.margin };
        let left = if right { width - needed } else { self.margin };
        self.stamp_at(image, [top, left])
    }
}
