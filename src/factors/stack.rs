//! Stacks of small f64 matrices on the host, and running sums of them on the device.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// `[groups, rows, columns]` in f64, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixStack {
    shape: [usize; 3],
    values: Vec<f64>,
}

impl MatrixStack {
    /// A stack of zeros.
    pub fn zeros(shape: [usize; 3]) -> Self {
        Self { shape, values: vec![0.0; shape.iter().product()] }
    }

    /// A stack from its values; `None` if their number does not fit.
    pub fn new(shape: [usize; 3], values: Vec<f64>) -> Option<Self> {
        (values.len() == shape.iter().product::<usize>()).then_some(Self { shape, values })
    }

    /// Groups, rows, columns.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// All values, row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// The values of one group's matrix.
    pub fn matrix(&self, group: usize) -> &[f64] {
        let size = self.shape[1] * self.shape[2];
        &self.values[group * size..(group + 1) * size]
    }

    /// Every value times `factor`.
    pub fn scale(&mut self, factor: f64) {
        self.map(|value| value * factor);
    }

    /// Adds `factor` times another stack of the same shape.
    pub(crate) fn add_scaled(&mut self, other: &Self, factor: f64) {
        debug_assert_eq!(self.shape, other.shape);
        self.values.iter_mut().zip(&other.values).for_each(|(sum, value)| *sum += factor * value);
    }

    pub(crate) fn map(&mut self, f: impl Fn(f64) -> f64) {
        self.values.iter_mut().for_each(|value| *value = f(*value));
    }

    /// Arithmetic mean of all values.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }

    /// The stack on a device, `[groups, rows, columns]`.
    pub fn to_tensor(&self, device: &Device, dtype: DType) -> Tensor<3> {
        let data = TensorData::new(self.values.clone(), self.shape).convert_dtype(dtype);
        Tensor::from_data(data, (device, dtype))
    }
}

/// A sum over many batches: terms are added on the device, in f64 where it has that, and moved to f64 on the host now
/// and then, so that neither f32 rounding nor a round trip per batch is paid.
#[derive(Debug)]
pub(crate) struct RunningSum {
    host: MatrixStack,
    device: Option<Tensor<3>>,
    pending: usize,
}

impl From<MatrixStack> for RunningSum {
    /// A sum that goes on from this one.
    fn from(host: MatrixStack) -> Self {
        Self { host, device: None, pending: 0 }
    }
}

/// Terms added before they move to the host: keeps the relative error near 1e-6 on devices that add in f32.
const PENDING: usize = 32;

impl RunningSum {
    pub fn new(shape: [usize; 3]) -> Self {
        Self { host: MatrixStack::zeros(shape), device: None, pending: 0 }
    }

    pub fn add(&mut self, term: Tensor<3>) {
        // An ill-conditioned covariance shows the rounding of the sum in its small eigenvalues, which weigh most in
        // scores.
        let term = match term.device().supports_dtype(DType::F64) {
            true => term.cast(DType::F64),
            false => term,
        };
        self.device = Some(match self.device.take() {
            None => term,
            Some(sum) => sum + term,
        });
        self.pending += 1;
        if self.pending >= PENDING {
            self.flush();
        }
    }

    /// Moves what is pending to the host.
    pub fn flush(&mut self) {
        let Some(sum) = self.device.take() else { return };
        let data = sum.into_data().convert::<f64>();
        if let Ok(values) = data.as_slice::<f64>() {
            self.host.values_mut().iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        self.pending = 0;
    }

    /// Everything so far times `factor`.
    pub fn scale(&mut self, factor: f64) {
        self.flush();
        self.host.scale(factor);
    }

    /// The sum so far.
    pub fn total(&mut self) -> MatrixStack {
        self.flush();
        self.host.clone()
    }
}
