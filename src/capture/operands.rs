//! Matrix products with their operands in the order that the backend is fast at.
//!
//! flex's products rearrange the right operand before they begin, and an operand whose neighbours in a column are
//! neighbours in memory (the transpose of an array) value by value: for few rows on the left that is most of the time.
//! So the smaller of the two goes there. What that gains: BENCHMARKS.md, "Distance to the floor". Other backends read
//! both operands alike.

use burn::tensor::{Device, Tensor};

use super::layer::even;

/// Columns of a transposed right operand that flex reads where they are: up to so many nothing is rearranged.
const READ_IN_PLACE: usize = 16;

/// Parameters per piece of a product of sample gradients with queries, at least.
const PIECE: usize = 2048;

/// Rows of an outer sum up to which rearranging them, and the result, costs less than rearranging the patches.
const FEW_ROWS: usize = 64;

fn is_flex(device: &Device) -> bool {
    *device == Device::flex()
}

/// Σ_t g_t a_tᵀ of each sample and group: from `[samples, groups, o, T]` and patches `[samples, groups, inputs, T]` to
/// `[samples, groups, o, inputs]`.
pub(super) fn outer_sum(g: Tensor<4>, patches: Tensor<4>) -> Tensor<4> {
    let [samples, groups, inputs, positions] = patches.dims();
    let outputs = g.dims()[2];
    let few = outputs <= FEW_ROWS && outputs < inputs && 4 * outputs <= positions;
    if !(few && is_flex(&g.device())) {
        return g.matmul(patches.swap_dims(2, 3));
    }
    let transposed = patches.matmul(g.swap_dims(2, 3)).swap_dims(2, 3);
    // Flattening makes it an array of its own, once for all that is done with it.
    transposed.reshape([samples * groups * outputs * inputs]).reshape([samples, groups, outputs, inputs])
}

/// ⟨q, G⟩ of every sample gradient `[samples, groups, o, D]` with every row q of `[queries, groups·o·D]`:
/// `[samples, queries]`.
///
/// One product over all parameters would be a small matrix from a very long sum: devices share out rows and columns of
/// the result, of which there are few. So the sum is cut into pieces of some [`PIECE`] parameters, whose products are a
/// batch.
pub(crate) fn products_with_rows(gradients: Tensor<4>, rows: &Tensor<2>) -> Tensor<2> {
    let [samples, groups, outputs, width] = gradients.dims();
    let [queries, parameters] = rows.dims();
    let most = (parameters / PIECE).max(1);
    let pieces = (1..=groups * outputs).rev().find(|&n| n <= most && (groups * outputs).is_multiple_of(n));
    let pieces = pieces.unwrap_or(1);
    let length = groups * outputs / pieces * width;
    let together = match is_flex(&rows.device()) {
        true => even(samples, READ_IN_PLACE),
        false => samples,
    };
    let gradients = gradients.reshape([samples, pieces, length]).permute([1, 2, 0]);
    let rows = rows.clone().reshape([queries, pieces, length]).swap_dims(0, 1);
    let products = (0..samples).step_by(together).map(|start| {
        let some = gradients.clone().narrow(2, start, together.min(samples - start));
        rows.clone().matmul(some).sum_dim(0) // [1, queries, some]
    });
    Tensor::cat(products.collect(), 2).reshape([queries, samples]).transpose()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Distribution};

    use super::*;

    const QUERIES: usize = 3;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), (&Device::flex(), DType::F64))
    }

    fn difference<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> f64 {
        (a.clone() - b.clone()).abs().max().into_scalar()
    }

    #[test]
    fn an_outer_sum_does_not_depend_on_the_order_of_its_operands() {
        // Rearranged, too many rows, too few positions, more rows than inputs.
        for [outputs, inputs, positions] in [[3, 10, 40], [70, 80, 300], [5, 10, 8], [12, 10, 60]] {
            let g = random([2, 2, outputs, positions]);
            let patches = random([2, 2, inputs, positions]);
            let expected = g.clone().matmul(patches.clone().swap_dims(2, 3));
            assert!(difference(&outer_sum(g, patches), &expected) < 1e-12, "{outputs} × {inputs}");
        }
    }

    #[test]
    fn pieces_of_the_sum_add_up() {
        // With 37 samples in more than one slice, the last of which is shorter.
        for shape in [[5, 1, 7, 1200], [37, 2, 6, 900], [16, 1, 1, 5000], [1, 3, 2, 5]] {
            let gradients = random(shape);
            let parameters = shape[1..].iter().product();
            let rows = random([QUERIES, parameters]);
            let expected = gradients.clone().reshape([shape[0], parameters]).matmul(rows.clone().transpose());
            assert!(difference(&products_with_rows(gradients, &rows), &expected) < 1e-10, "{shape:?}");
        }
    }
}
