//! The frame of a drawing with two axes: values to the right, logarithms of counts upwards.

use super::escape::Html;

/// Width of every drawing.
pub(super) const WIDTH: f64 = 340.0;
const LEFT: f64 = 38.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 34.0;

pub(super) struct Frame {
    pub height: f64,
    /// The values at the left and right end.
    range: [f64; 2],
    /// The largest count.
    most: usize,
}

impl Frame {
    pub fn new(range: [f64; 2], most: usize, height: f64) -> Self {
        Self { height, range, most }
    }

    pub fn left(&self) -> f64 {
        LEFT
    }

    pub fn inner_width(&self) -> f64 {
        WIDTH - LEFT - RIGHT
    }

    fn x(&self, value: f64) -> f64 {
        let [from, to] = self.range;
        let share = if to > from { (value - from) / (to - from) } else { 0.5 };
        LEFT + share.clamp(0.0, 1.0) * self.inner_width()
    }

    fn y(&self, count: usize) -> f64 {
        // One more, so that a single sample shows and nothing is 0.
        let share = (count as f64).ln_1p() / (self.most.max(1) as f64).ln_1p();
        self.height - BOTTOM - share * (self.height - TOP - BOTTOM)
    }

    pub fn bar(&self, html: &mut Html, class: &'static str, x: f64, width: f64, count: usize) {
        let (y, bottom) = (self.y(count), self.height - BOTTOM);
        let height = bottom - y;
        html.element(
            "rect",
            &[
                ("class", &class),
                ("x", &round(x)),
                ("y", &round(y)),
                ("width", &round(width)),
                ("height", &round(height)),
            ],
            "",
        );
    }

    /// A line at one value, from top to bottom.
    pub fn mark(&self, html: &mut Html, value: f64) {
        let (x, bottom) = (round(self.x(value)), self.height - BOTTOM);
        html.element(
            "line",
            &[("class", &"mark"), ("x1", &x), ("x2", &x), ("y1", &TOP), ("y2", &bottom)],
            "",
        );
    }

    /// 1, 10, 100, … and 0.
    pub fn counts(&self, html: &mut Html) {
        let powers = std::iter::successors(Some(1_usize), |power| power.checked_mul(10));
        for count in std::iter::once(0).chain(powers.take_while(|power| *power <= self.most.max(1))) {
            let y = round(self.y(count));
            let right = WIDTH - RIGHT;
            html.element(
                "line",
                &[("class", &"axis"), ("x1", &LEFT), ("x2", &right), ("y1", &y), ("y2", &y)],
                "",
            );
            let text = match count {
                1_000_000.. => format!("{} M", count / 1_000_000),
                10_000.. => format!("{} k", count / 1_000),
                _ => count.to_string(),
            };
            html.element("text", &[("class", &"end"), ("x", &(LEFT - 5.0)), ("y", &(y + 4.0))], text);
        }
    }

    /// Round numbers along the bottom, and what they are.
    pub fn values(&self, html: &mut Html, name: &'static str) {
        let y = self.height - BOTTOM + 14.0;
        for value in ticks(self.range) {
            let x = round(self.x(value));
            let text = format!("{}", round(value)).replace('-', "−");
            html.element("text", &[("class", &"middle"), ("x", &x), ("y", &y)], text);
        }
        let (x, y) = (LEFT + self.inner_width() / 2.0, self.height - 5.0);
        html.element("text", &[("class", &"middle"), ("x", &x), ("y", &y)], name);
    }

    pub fn legend(&self, html: &mut Html, entries: &[(&'static str, &'static str)]) {
        legend(html, LEFT, 12.0, entries);
    }
}

pub(super) fn legend(html: &mut Html, x: f64, y: f64, entries: &[(&'static str, &'static str)]) {
    let mut x = x;
    for (class, text) in entries {
        let top = y - 9.0;
        html.element(
            "rect",
            &[("class", class), ("x", &x), ("y", &top), ("width", &10), ("height", &10)],
            "",
        );
        html.element("text", &[("x", &(x + 15.0)), ("y", &y)], text);
        x += 36.0 + 6.0 * text.len() as f64;
    }
}

/// At most some six multiples of 1, 2 or 5 times a power of ten.
fn ticks([from, to]: [f64; 2]) -> Vec<f64> {
    let span = to - from;
    if !(span.is_finite() && span > 0.0) {
        return if from.is_finite() { vec![from] } else { Vec::new() };
    }
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (from / step).ceil();
    (0..=6).map(|n| (first + f64::from(n)) * step).filter(|value| *value <= to).collect()
}

/// Four digits are more than a drawing shows.
fn round(value: f64) -> f64 {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let scale = 10_f64.powf(3.0 - magnitude.max(-300.0));
    let rounded = (value * scale).round() / scale;
    // Neither −0 nor what overflows on the way.
    if rounded.is_finite() { rounded + 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks([0.0, 1.0]), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks([-3.2, 18.7]), [0.0, 5.0, 10.0, 15.0]);
        assert_eq!(ticks([2.0, 2.0]), [2.0]);
        assert!(ticks([f64::NAN, 1.0]).is_empty() && ticks([0.0, f64::INFINITY]) == [0.0]);
        for exponent in -300..300 {
            let to = 10_f64.powi(exponent);
            let count = ticks([-to, 1.7 * to]).len();
            assert!((2..=7).contains(&count), "{to}: {count}");
        }
    }

    #[test]
    fn drawings_have_short_numbers() {
        assert_eq!(round(0.6000000000000001).to_string(), "0.6");
        assert_eq!(round(123.456_78).to_string(), "123.5");
        assert_eq!(round(-0.0).to_string(), "0");
    }
}
