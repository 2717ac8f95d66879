//! One picture: a background, a pole, a sign in it, and what light and camera make of them.

use rand::{Rng, RngExt};

use super::SIDE;
use super::shapes::{self, Colour, REACH};

/// Samples along each side of a pixel where the sign's edges may be.
const OVERSAMPLING: usize = 3;

/// Everything that is drawn, before light and camera.
pub(super) struct Scene {
    label: usize,
    /// The sign's centre in pixels.
    centre: [f32; 2],
    /// From an offset in pixels to sign coordinates, row by row.
    to_sign: [[f32; 2]; 2],
    /// Pixels from the centre beyond which there is no sign.
    reach: f32,
    pole: Option<Colour>,
    background: Background,
}

struct Background {
    /// Colours at the four corners.
    corners: [Colour; 4],
    /// Values in `[-1, 1]` on a coarse grid, between which brightness is interpolated.
    texture: [[f32; GRID]; GRID],
    texture_strength: f32,
    blobs: Vec<Blob>,
}

const GRID: usize = 9;

/// An ellipse or a rectangle with axes along the image's.
struct Blob {
    centre: [f32; 2],
    radii: [f32; 2],
    rectangle: bool,
    colour: Colour,
    opacity: f32,
}

impl Scene {
    pub(super) fn random(label: usize, rng: &mut impl Rng) -> Self {
        let size: f32 = rng.random_range(11.0..14.5);
        let aspect: f32 = rng.random_range(0.86..1.08); // seen from the side, a sign gets narrower
        let shear: f32 = rng.random_range(-0.12..0.12);
        let (sin, cos) = rng.random_range(-0.2f32..0.2).sin_cos();
        // Inverse of rotation · shear · scale.
        let (sx, sy) = (1.0 / (size * aspect), 1.0 / size);
        let to_sign = [[sx * (cos + shear * sin), sx * (sin - shear * cos)], [-sy * sin, sy * cos]];
        // The sign may touch the border but is never cut in half.
        let slack = (SIDE as f32 / 2.0 - size).clamp(1.0, 3.0);
        let middle = SIDE as f32 / 2.0;
        let centre = [0, 1].map(|_| middle + slack * rng.random_range(-1.0f32..1.0));
        let pole = rng.random_bool(0.6).then(|| {
            let grey = rng.random_range(0.25f32..0.7);
            [grey; 3]
        });
        let background = Background::random(rng);
        Self { label, centre, to_sign, reach: size * REACH * 1.15, pole, background }
    }

    /// The picture, `SIDE²` colours row by row, not clamped.
    pub(super) fn render(&self, rng: &mut impl Rng) -> Vec<Colour> {
        let paint = Paint::random(rng);
        let light = Light::random(rng);
        let mut pixels = Vec::with_capacity(SIDE * SIDE);
        for row in 0..SIDE {
            for column in 0..SIDE {
                let (x, y) = (column as f32 + 0.5, row as f32 + 0.5);
                let behind = self.behind(x, y);
                let scene = self.sign_over(behind, x, y, &paint);
                pixels.push(light.shine(scene, x, y));
            }
        }
        blur(&mut pixels, rng.random_range(0.0f32..0.9));
        let noise = rng.random_range(0.004f32..0.035);
        for value in pixels.iter_mut().flatten() {
            *value += noise * gaussian(rng);
        }
        pixels
    }

    fn behind(&self, x: f32, y: f32) -> Colour {
        match self.pole {
            Some(pole) if y > self.centre[1] && (x - self.centre[0]).abs() < 1.2 => pole,
            _ => self.background.at(x, y),
        }
    }

    /// The sign's mean colour over the pixel, mixed with what shows beside it.
    fn sign_over(&self, behind: Colour, x: f32, y: f32, paint: &Paint) -> Colour {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        if dx.hypot(dy) > self.reach + 1.0 {
            return behind;
        }
        let (mut sum, mut hits) = ([0.0; 3], 0);
        for step in 0..OVERSAMPLING * OVERSAMPLING {
            let offset = |step: usize| (step as f32 + 0.5) / OVERSAMPLING as f32 - 0.5;
            let (dx, dy) = (dx + offset(step % OVERSAMPLING), dy + offset(step / OVERSAMPLING));
            let [u, v] = self.to_sign.map(|row| row[0] * dx + row[1] * dy);
            if let Some(colour) = shapes::colour(self.label, u, v) {
                sum = zip(sum, colour, |a, b| a + b);
                hits += 1;
            }
        }
        let samples = (OVERSAMPLING * OVERSAMPLING) as f32;
        let beside = 1.0 - hits as f32 / samples;
        let mean = zip(sum, behind, |sign, behind| sign / samples + beside * behind);
        if hits == 0 { mean } else { paint.age(mean) }
    }
}

impl Background {
    fn random(rng: &mut impl Rng) -> Self {
        // Two colours mixed at the corners: sky above ground, wall beside street.
        let (one, other) = (random_colour(rng, 0.35), random_colour(rng, 0.35));
        let corners = [0; 4].map(|_| {
            let share = rng.random::<f32>();
            zip(one, other, |a, b| a + share * (b - a))
        });
        let texture = [[0; GRID]; GRID].map(|row| row.map(|_| rng.random_range(-1.0f32..1.0)));
        let blobs = (0..rng.random_range(2..7)).map(|_| Blob::random(rng)).collect();
        Self { corners, texture, texture_strength: rng.random_range(0.03..0.2), blobs }
    }

    fn at(&self, x: f32, y: f32) -> Colour {
        let (u, v) = (x / SIDE as f32, y / SIDE as f32);
        let [a, b, c, d] = self.corners;
        let top = zip(a, b, |a, b| a + u * (b - a));
        let bottom = zip(c, d, |a, b| a + u * (b - a));
        let texture = self.texture_strength * self.texture_at(u, v);
        let mut colour = zip(top, bottom, |a, b| a + v * (b - a) + texture);
        for blob in &self.blobs {
            let cover = blob.opacity * blob.cover(x, y);
            colour = zip(colour, blob.colour, |a, b| a + cover * (b + texture - a));
        }
        colour
    }

    fn texture_at(&self, u: f32, v: f32) -> f32 {
        let cells = (GRID - 1) as f32;
        let (u, v) = (u * cells, v * cells);
        let (column, row) = ((u as usize).min(GRID - 2), (v as usize).min(GRID - 2));
        let (fu, fv) = (u - column as f32, v - row as f32);
        let line = |row: &[f32; GRID]| row[column] + fu * (row[column + 1] - row[column]);
        let (top, bottom) = (line(&self.texture[row]), line(&self.texture[row + 1]));
        top + fv * (bottom - top)
    }
}

impl Blob {
    fn random(rng: &mut impl Rng) -> Self {
        Self {
            centre: [0, 1].map(|_| rng.random_range(0.0..SIDE as f32)),
            radii: [0, 1].map(|_| rng.random_range(1.5f32..9.0)),
            rectangle: rng.random_bool(0.5),
            colour: random_colour(rng, 0.9),
            opacity: rng.random_range(0.3..0.95),
        }
    }

    /// 1 inside, 0 outside, about a pixel of transition.
    fn cover(&self, x: f32, y: f32) -> f32 {
        let u = (x - self.centre[0]).abs() / self.radii[0];
        let v = (y - self.centre[1]).abs() / self.radii[1];
        let distance = if self.rectangle { u.max(v) } else { u.hypot(v) };
        ((1.0 - distance) * self.radii[0].min(self.radii[1]) + 0.5).clamp(0.0, 1.0)
    }
}

/// How the sign's paint has aged: faded towards grey and with its hue turned a little.
struct Paint {
    fading: f32,
    tint: Colour,
}

impl Paint {
    fn random(rng: &mut impl Rng) -> Self {
        Self { fading: rng.random_range(0.0..0.25), tint: [0; 3].map(|_| rng.random_range(-0.06f32..0.06)) }
    }

    fn age(&self, colour: Colour) -> Colour {
        let grey = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2];
        zip(colour, self.tint, |value, tint| value + self.fading * (grey - value) + tint)
    }
}

/// Light and camera: exposure and contrast, colour temperature, light from one side, and the edge of a shadow.
struct Light {
    gain: Colour,
    contrast: f32,
    lift: f32,
    slope: [f32; 2],
    shadow: Option<Shadow>,
}

/// Darkness on one side of a line through a point.
struct Shadow {
    point: [f32; 2],
    normal: [f32; 2],
    depth: f32,
}

impl Light {
    fn random(rng: &mut impl Rng) -> Self {
        let exposure = rng.random_range(0.6f32..1.15);
        let shadow = rng.random_bool(0.3).then(|| {
            let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
            Shadow {
                point: [0, 1].map(|_| rng.random_range(8.0..24.0)),
                normal: [cos, sin],
                depth: rng.random_range(0.15..0.4),
            }
        });
        Self {
            gain: [0; 3].map(|_| exposure * rng.random_range(0.9f32..1.1)),
            contrast: rng.random_range(0.8..1.15),
            lift: rng.random_range(-0.04..0.1),
            slope: [0, 1].map(|_| rng.random_range(-0.2f32..0.2)),
            shadow,
        }
    }

    fn shine(&self, colour: Colour, x: f32, y: f32) -> Colour {
        let (u, v) = (x / SIDE as f32 - 0.5, y / SIDE as f32 - 0.5);
        let mut strength = 1.0 + self.slope[0] * u + self.slope[1] * v;
        if let Some(Shadow { point, normal, depth }) = &self.shadow {
            let side = (x - point[0]) * normal[0] + (y - point[1]) * normal[1];
            strength *= 1.0 - depth * (side + 0.5).clamp(0.0, 1.0);
        }
        zip(colour, self.gain, |value, gain| {
            let lit = value * gain * strength;
            0.4 + self.contrast * (lit - 0.4) + self.lift
        })
    }
}

/// Mixes each pixel with its neighbours, columns then rows: binomial weights `(a, 2 − 2a, a) / 2` with `a` up to 1/2.
fn blur(pixels: &mut [Colour], strength: f32) {
    let side = strength / 4.0;
    for (along, across) in [(1, SIDE), (SIDE, 1)] {
        for line in 0..SIDE {
            let mut before = pixels[line * across];
            for place in 0..SIDE {
                let here = line * across + place * along;
                let after = pixels[if place + 1 < SIDE { here + along } else { here }];
                let old = pixels[here];
                pixels[here] =
                    std::array::from_fn(|c| (1.0 - 2.0 * side) * old[c] + side * (before[c] + after[c]));
                before = old;
            }
        }
    }
}

/// A colour around a random grey, up to `saturation` away from it.
fn random_colour(rng: &mut impl Rng, saturation: f32) -> Colour {
    let grey = rng.random_range(0.1f32..0.95);
    [0; 3].map(|_| (grey + saturation * rng.random_range(-0.7f32..0.7)).clamp(0.0, 1.0))
}

/// About standard normal: the sum of four uniform numbers out of one random word. A camera's noise needs no tails.
fn gaussian(rng: &mut impl Rng) -> f32 {
    let word = rng.next_u64();
    let sum: u32 = (0..4).map(|part| u32::from((word >> (16 * part)) as u16)).sum();
    // The sum of four uniforms has variance 4/12.
    (sum as f32 / 65536.0 - 2.0) * 3.0f32.sqrt()
}

fn zip(a: Colour, b: Colour, f: impl Fn(f32, f32) -> f32) -> Colour {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2])]
}
