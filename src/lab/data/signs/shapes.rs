//! The drawings: the colour of each class's sign at a point.
//!
//! Sign coordinates have the centre at the origin, x to the right, y *down*; every sign fits into the circle of
//! radius `REACH`.

/// Red, green, blue in `[0, 1]`.
pub(super) type Colour = [f32; 3];

/// No sign reaches further from its centre than this.
pub(super) const REACH: f32 = 1.15;

const RED: Colour = [0.78, 0.08, 0.11];
const BLUE: Colour = [0.05, 0.28, 0.68];
const YELLOW: Colour = [0.96, 0.76, 0.08];
const WHITE: Colour = [0.95, 0.95, 0.94];
const BLACK: Colour = [0.07, 0.07, 0.08];

/// The colour of class `label`'s sign at a point, or `None` beside the sign.
pub(super) fn colour(label: usize, x: f32, y: f32) -> Option<Colour> {
    match label {
        0 => stop(x, y),
        1 => give_way(x, y),
        2 => limit(&GLYPHS_30, x, y),
        3 => limit(&GLYPHS_70, x, y),
        4 => arrow(-x, y),
        5 => arrow(x, y),
        6 => no_entry(x, y),
        _ => priority(x, y),
    }
}

fn stop(x: f32, y: f32) -> Option<Colour> {
    // Apothem of the octagon through the point.
    let (ax, ay) = (x.abs(), y.abs());
    let apothem = ax.max(ay).max((ax + ay) * std::f32::consts::FRAC_1_SQRT_2);
    match apothem {
        a if a > 1.0 => None,
        a if a > 0.88 => Some(WHITE),
        _ if text(&GLYPHS_STOP, x / 0.76, y / 0.34) => Some(WHITE),
        _ => Some(RED),
    }
}

fn give_way(x: f32, y: f32) -> Option<Colour> {
    // Distance of the point from the centre of a triangle on its tip, measured towards the nearest side.
    let y = y + 0.18;
    let distance = (-y).max(y * 0.5 + x.abs() * 0.866);
    match distance {
        d if d > 0.6 => None,
        d if d > 0.3 => Some(RED),
        _ => Some(WHITE),
    }
}

fn limit(glyphs: &[Glyph], x: f32, y: f32) -> Option<Colour> {
    match x.hypot(y) {
        r if r > 1.0 => None,
        r if r > 0.76 => Some(RED),
        _ if text(glyphs, x / 0.55, y / 0.45) => Some(BLACK),
        _ => Some(WHITE),
    }
}

fn arrow(x: f32, y: f32) -> Option<Colour> {
    let shaft = (-0.66..=0.1).contains(&x) && y.abs() < 0.16;
    let head = (0.02..=0.7).contains(&x) && y.abs() < (0.7 - x) * 0.75;
    match x.hypot(y) {
        r if r > 1.0 => None,
        r if r > 0.9 => Some(WHITE),
        _ if shaft || head => Some(WHITE),
        _ => Some(BLUE),
    }
}

fn no_entry(x: f32, y: f32) -> Option<Colour> {
    match x.hypot(y) {
        r if r > 1.0 => None,
        r if r > 0.92 => Some(WHITE),
        _ if x.abs() < 0.68 && y.abs() < 0.19 => Some(WHITE),
        _ => Some(RED),
    }
}

fn priority(x: f32, y: f32) -> Option<Colour> {
    match x.abs() + y.abs() {
        d if d > 1.1 => None,
        d if d > 1.02 => Some(BLACK),
        d if d > 0.7 => Some(WHITE),
        _ => Some(YELLOW),
    }
}

/// Five rows of three bits, the left column in the highest.
type Glyph = [u8; 5];

const GLYPHS_30: [Glyph; 2] = [[0b111, 0b001, 0b111, 0b001, 0b111], [0b111, 0b101, 0b101, 0b101, 0b111]];
const GLYPHS_70: [Glyph; 2] = [[0b111, 0b001, 0b010, 0b010, 0b010], [0b111, 0b101, 0b101, 0b101, 0b111]];
const GLYPHS_STOP: [Glyph; 4] = [
    [0b111, 0b100, 0b111, 0b001, 0b111],
    [0b111, 0b010, 0b010, 0b010, 0b010],
    [0b111, 0b101, 0b101, 0b101, 0b111],
    [0b111, 0b101, 0b111, 0b100, 0b100],
];

/// Whether a point of the box `[-1, 1]²` lies on a line of glyphs that fills it, one empty column between two glyphs.
fn text(glyphs: &[Glyph], x: f32, y: f32) -> bool {
    if x.abs() >= 1.0 || y.abs() >= 1.0 {
        return false;
    }
    let columns = glyphs.len() * 4 - 1;
    let column = ((x + 1.0) / 2.0 * columns as f32) as usize;
    let row = ((y + 1.0) / 2.0 * 5.0) as usize;
    match (glyphs.get(column / 4), column % 4) {
        (None, _) | (_, 3) => false,
        (Some(glyph), bit) => glyph[row.min(4)] >> (2 - bit) & 1 == 1,
    }
}
