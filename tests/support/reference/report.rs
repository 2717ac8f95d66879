//! The worst error of every quantity, printed case by case and held against a limit at the end.

use std::collections::BTreeMap;

use burn::tensor::DType;

use crate::compare::relative_error;

/// Worst errors of one case in one precision.
#[derive(Debug, Default)]
pub struct Errors {
    /// By quantity: the error and the tensor that has it.
    worst: BTreeMap<String, (f64, String)>,
}

impl Errors {
    /// Compares one tensor; the worst of a quantity counts.
    pub fn compare(&mut self, quantity: &str, tensor: &str, got: &[f64], expected: &[f64]) {
        let error = relative_error(got, expected);
        let worst = self.worst.entry(quantity.to_owned()).or_insert((0.0, tensor.to_owned()));
        if error >= worst.0 {
            *worst = (error, tensor.to_owned());
        }
    }
}

/// Worst errors of all cases.
#[derive(Debug)]
pub struct Report {
    failures: Vec<String>,
}

impl Report {
    pub fn new() -> Self {
        Self { failures: Vec::new() }
    }

    /// Prints a case's errors and notes those above the limit of its precision.
    pub fn add(&mut self, case: &str, dtype: DType, errors: &Errors) {
        if errors.worst.is_empty() {
            self.failures.push(format!("{case}: nothing to compare with"));
        }
        for (quantity, (error, tensor)) in &errors.worst {
            let line = format!("{case} {dtype:?} {quantity}: {error:.1e} ({tensor})");
            println!("{line}");
            let limit = limit(dtype, quantity);
            if *error > limit {
                self.failures.push(format!("{line}, limit {limit:.0e}"));
            }
        }
    }

    /// # Panics
    /// If anything was above its limit.
    pub fn finish(self) {
        assert!(self.failures.is_empty(), "away from the reference:\n{}", self.failures.join("\n"));
    }
}

/// Largest error over largest magnitude of a tensor that passes.
///
/// A preconditioned gradient at a small constant damping d holds the rounding of the curvature's null space over d,
/// which no score sees: between the reference's own f32 and f64 it is up to 15 %.
fn limit(dtype: DType, quantity: &str) -> f64 {
    let constant_damping = !quantity.ends_with("dampNone") && !quantity.ends_with("dampUnused");
    match dtype {
        DType::F64 if quantity.starts_with("preconditioned") && constant_damping => 1e-8,
        DType::F64 => 1e-9,
        _ => 1e-4,
    }
}
