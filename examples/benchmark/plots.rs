//! Precision–recall curves and score histograms as pictures.

use std::fmt::Write;
use std::path::Path;

use crate::audits::CellRecord;
use crate::support::Outcome;
use crate::table::families;

/// Detectors that are drawn, each with its colour.
const CURVES: [(&str, &str); 6] = [
    ("delta", "#0072b2"),
    ("layer-cosine", "#56b4e9"),
    ("paper (η 0, 2)", "#d55e00"),
    ("EK-FAC threshold", "#e69f00"),
    ("activation clustering in the label", "#009e73"),
    ("spectral signatures in the label", "#cc79a7"),
];
const SIDE: f64 = 300.0;
const MARGIN: f64 = 46.0;
/// Recalls at which precision is averaged.
const STEPS: usize = 100;

/// Writes `precision-recall-FAMILY.svg` and `scores-FAMILY.svg` for each family of attacks.
pub fn write(out: &Path, records: &[CellRecord]) -> Outcome<()> {
    for (family, records) in families(records) {
        let name = family.to_lowercase().replace([' ', '\''], "-").replace("--", "-");
        std::fs::write(out.join(format!("precision-recall-{name}.svg")), picture(family, &records))?;
        std::fs::write(out.join(format!("scores-{name}.svg")), histograms(family, &records))?;
    }
    Ok(())
}

/// Detectors whose scores are drawn.
const HISTOGRAMS: [&str; 3] = ["delta", "EK-FAC threshold", "activation clustering in the label"];

/// For each detector the distribution of the scores, from the lowest to the highest of each suspect, its poisons and
/// its other samples as shares of their own number, mean over suspects.
fn histograms(family: &str, records: &[&CellRecord]) -> String {
    const HEIGHT: f64 = 90.0;
    const GAP: f64 = 46.0;
    let width = 2.0 * MARGIN + 2.0 * SIDE;
    let height = GAP + HISTOGRAMS.len() as f64 * (HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"22\" font-size=\"14\">{family}: scores of <tspan fill=\"#d55e00\">poisons</tspan> and \
         <tspan fill=\"#0072b2\">other samples</tspan>, lowest to highest</text>\n"
    );
    for (row, detector) in HISTOGRAMS.iter().enumerate() {
        let drawn = records.iter().filter(|record| record.detector == *detector);
        let drawn: Vec<_> = drawn.filter_map(|record| record.histogram.as_ref()).collect();
        let bottom = GAP + row as f64 * (HEIGHT + GAP) + HEIGHT;
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{}\">{detector}</text><path d=\"M{MARGIN} {bottom}h{}\" stroke=\"#999\"/>",
            bottom + 16.0,
            2.0 * SIDE
        );
        for (counts, colour) in [
            (drawn.iter().map(|h| &h.others).collect::<Vec<_>>(), "#0072b2"),
            (drawn.iter().map(|h| &h.poisons).collect::<Vec<_>>(), "#d55e00"),
        ] {
            let bins = counts.first().map_or(0, |counts| counts.len());
            for bin in 0..bins {
                let shares = counts
                    .iter()
                    .map(|counts| counts[bin] as f64 / counts.iter().sum::<usize>().max(1) as f64);
                // Square roots: a few per cent are to be seen beside a half.
                let share = (shares.sum::<f64>() / counts.len() as f64).sqrt();
                let step = 2.0 * SIDE / bins as f64;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" fill-opacity=\"0.6\"/>",
                    MARGIN + step * bin as f64,
                    bottom - HEIGHT * share,
                    step,
                    HEIGHT * share
                );
            }
        }
    }
    svg + "</svg>\n"
}

/// Precision at a recall, the best of all thresholds that reach it.
fn precision_at(record: &CellRecord, recall: f64) -> f64 {
    let poisons = record.metrics.poisons as f64;
    let needed = (recall * poisons).ceil().max(1.0) as usize;
    let reached = record.ranks.iter().enumerate().skip(needed - 1);
    reached.map(|(found, rank)| (found + 1) as f64 / (rank + 1) as f64).fold(0.0, f64::max)
}

fn picture(family: &str, records: &[&CellRecord]) -> String {
    let lines = CURVES.iter().filter_map(|&(detector, colour)| {
        let mine: Vec<_> = records.iter().filter(|record| record.detector == detector).collect();
        let mean = |recall: f64| {
            mine.iter().map(|record| precision_at(record, recall)).sum::<f64>() / mine.len() as f64
        };
        let points = (1..=STEPS).map(|step| step as f64 / STEPS as f64).map(|recall| (recall, mean(recall)));
        (!mine.is_empty()).then(|| Line { name: detector.to_owned(), colour, points: points.collect() })
    });
    chart(&format!("{family}: precision over recall, mean over suspects"), lines)
}

/// A line of a chart, its points in the unit square.
pub struct Line {
    pub name: String,
    pub colour: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Lines over the unit square, with a legend beside it.
pub fn chart(title: &str, lines: impl IntoIterator<Item = Line>) -> String {
    let (width, height) = (SIDE + 2.0 * MARGIN + 230.0, SIDE + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"14\">{title}</text>\n"
    );
    let (x, y) = (|value: f64| MARGIN + SIDE * value, |value: f64| MARGIN + SIDE * (1.0 - value));
    for tick in 0..=4 {
        let at = f64::from(tick) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{} {}H{}M{} {}V{}\" stroke=\"#ddd\" fill=\"none\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{at}</text><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{at}</text>",
            x(0.0),
            y(at),
            x(1.0),
            x(at),
            y(0.0),
            y(1.0),
            x(0.0) - 6.0,
            y(at) + 4.0,
            x(at),
            y(0.0) + 16.0
        );
    }
    for (number, Line { name, colour, points }) in lines.into_iter().enumerate() {
        let points: Vec<_> =
            points.iter().map(|&(right, up)| format!("{:.1},{:.1}", x(right), y(up))).collect();
        let (left, top) = (MARGIN + SIDE + 16.0, MARGIN + 10.0 + 20.0 * number as f64);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <path d=\"M{left} {top}h18\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            points.join(" "),
            left + 24.0,
            top + 4.0
        );
    }
    svg + "</svg>\n"
}
