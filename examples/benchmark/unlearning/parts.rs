//! What a partial knowledge of the poisons is worth: the parts that are tried, and pictures of them.

use std::path::Path;

use burn_delta_influence::report::StateRecord;

use super::{Flags, UnlearnCell};
use crate::grid::ModelCell;
use crate::plots::{Line, chart};
use crate::support::Outcome;

/// Parts of the poisons that were found, and clean images that were taken for one, per poison. From none of them one
/// clean image is removed (there is no unlearning of nothing): what training on does by itself.
pub(super) const FOUND: [f64; 6] = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0];
pub(super) const WRONG: [f64; 4] = [0.0, 1.0, 5.0, 20.0];

/// What is drawn of a model, and its colours, one for each model.
type Rate = (&'static str, [&'static str; 3], fn(&StateRecord) -> Option<f64>);

const RATES: [Rate; 2] = [
    ("PSR", ["#d55e00", "#cc79a7", "#e69f00"], |state| state.poison_success_rate),
    ("accuracy", ["#0072b2", "#56b4e9", "#009e73"], |state| state.clean_accuracy),
];

/// Pictures of what a partial knowledge of the poisons is worth: PSR and clean accuracy of each model after `resume`
/// over the part of the poisons that was found, and over the clean images that were removed beside all of them (20 for
/// each poison are the right end).
pub fn write_parts(out: &Path, records: &[UnlearnCell]) -> Outcome<()> {
    let most_wrong = WRONG.iter().copied().fold(0.0, f64::max);
    let mut models: Vec<&ModelCell> = Vec::new();
    for cell in records.iter().filter(|cell| matches!(cell.flags, Flags::Part { .. })) {
        if !models.contains(&&cell.model) {
            models.push(&cell.model);
        }
    }
    // Where a part lies on the axis, if it lies on it.
    let draw = |place: &dyn Fn(f64, f64) -> Option<f64>| {
        let mut lines = Vec::new();
        for (number, model) in models.iter().enumerate() {
            for (rate, colours, value) in RATES {
                let points = records.iter().filter(|cell| cell.model == **model).filter_map(|cell| {
                    let Flags::Part { found, wrong } = cell.flags else { return None };
                    Some((place(found, wrong)?, value(&cell.record.after)?))
                });
                lines.push(Line {
                    name: format!("{rate}, {}, {}", crate::grid::name(&model.data), model.attack.family()),
                    colour: colours[number % colours.len()],
                    points: points.collect(),
                });
            }
        }
        lines
    };
    let over_found = draw(&|found, wrong| (wrong == 0.0).then_some(found));
    let over_wrong = draw(&|found, wrong| (found == 1.0).then_some(wrong / most_wrong));
    let pictures = [
        ("resume-over-found.svg", "after resume, over the part of the poisons that was removed", over_found),
        (
            "resume-over-wrong.svg",
            "after resume, over clean images removed beside all poisons, 1 = 20 per poison",
            over_wrong,
        ),
    ];
    for (name, title, lines) in pictures {
        std::fs::write(out.join(name), chart(title, lines))?;
    }
    Ok(())
}
