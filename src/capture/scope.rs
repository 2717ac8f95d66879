//! The capture scope: while one is open on a thread, every captured layer that runs there leaves its input and a tap.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};

use super::call::{LayerCall, LayerInput};
use super::layer::LayerCapture;
use super::shape::LayerShape;
use super::tap::{Slot, is_supported, tap};

/// What a scope does with outputs that carry no graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScopeKind {
    /// A training step: the loss will be differentiated with respect to the weights, so every layer that takes part has
    /// a tracked output. A layer that is frozen, or that runs in an inference pass on the side, is left alone.
    Training,
    /// Inputs alone: no tap and no graph, for forward passes that no backward pass follows.
    Inputs,
    /// Nothing: a step inside another one that is captured, so that the outer one does not capture it.
    Idle,
    /// A frozen model: no weight requires a gradient, and the graph starts at the output of the first captured layer.
    /// Layers whose weights the user had frozen before are left alone. Backward then computes neither weight gradients
    /// nor the gradient of the model's input. Behind that layer tensors are autodiff ones: what a model does in
    /// training alone must depend on a flag of the module (burn's `Param<Flag>`, as its own layers have), not on the
    /// device.
    Frozen,
}

/// A layer that took part but cannot be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The identity of the layer's weight.
    pub id: ParamId,
    /// Length of its input vectors.
    pub inputs: usize,
    /// The largest length that can be captured.
    pub limit: usize,
}

struct Frame {
    id: u64,
    kind: ScopeKind,
    /// So many samples of each call are kept: the first ones.
    most: usize,
    layers: Vec<LayerCapture>,
    refused: Option<Refused>,
    unsupported: Option<Device>,
    /// A layer took part whose weights are not trained.
    met_frozen: bool,
}

impl Frame {
    /// Whether it takes calls of a layer. Frozen weights have no gradient of their own: a teacher's beside its
    /// student's, which may have the same identities, are none of the student's.
    fn takes<const D: usize>(&mut self, weight: &Param<Tensor<D>>, output: &Tensor<3>) -> bool {
        match self.kind {
            ScopeKind::Idle => false,
            ScopeKind::Inputs => true,
            ScopeKind::Training => output.is_tracked() && weight.is_require_grad(),
            ScopeKind::Frozen => {
                let is_trained = is_trained(weight);
                self.met_frozen |= !is_trained;
                is_trained
            }
        }
    }

    fn note(&mut self, id: ParamId, shape: LayerShape, call: LayerCall) {
        match self.layers.iter_mut().find(|layer| layer.id == id) {
            Some(layer) => layer.calls.push(call),
            None => self.layers.push(LayerCapture { id, shape, calls: vec![call] }),
        }
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // A stack: a scope opened inside another (a nested training step) captures for itself alone.
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// An open capture scope on this thread. Forward and backward must run on the thread that opened it, which they do in
/// burn's `Learner`, workers of multi-device training included.
#[derive(Debug)]
#[must_use = "a scope captures until it is finished or dropped"]
pub struct CaptureScope {
    id: u64,
    // The frame lives in a thread-local: the guard must not travel.
    _not_send: PhantomData<*const ()>,
}

impl CaptureScope {
    /// Opens a scope on this thread.
    pub fn open(kind: ScopeKind) -> Self {
        Self::open_of(usize::MAX, kind)
    }

    /// Opens a scope that keeps no more than the first `most` samples of each call, of inputs and of gradients: until
    /// it is finished it holds those of all layers, where a training step without it lets go of each when it is done.
    pub(crate) fn open_of(most: usize, kind: ScopeKind) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        FRAMES.with_borrow_mut(|frames| {
            frames.push(Frame {
                id,
                kind,
                most,
                layers: Vec::new(),
                refused: None,
                unsupported: None,
                met_frozen: false,
            });
        });
        Self { id, _not_send: PhantomData }
    }

    /// Closes the scope and returns what the layers left, in the order of their first call.
    ///
    /// Gradients are there once the backward pass is over: call it after `backward()`.
    pub fn finish(self) -> Vec<LayerCapture> {
        self.take().map(|frame| frame.layers).unwrap_or_default()
    }

    /// The first layer that took part so far and cannot be captured.
    pub fn refused(&self) -> Option<Refused> {
        FRAMES.with_borrow(|frames| frames.iter().find(|frame| frame.id == self.id)?.refused)
    }

    /// Whether a layer took part that the user froze.
    pub(crate) fn met_frozen(&self) -> bool {
        FRAMES.with_borrow(|frames| frames.iter().any(|frame| frame.id == self.id && frame.met_frozen))
    }

    /// A device on which a layer ran whose backend this crate was built without.
    pub(crate) fn unsupported(&self) -> Option<Device> {
        FRAMES.with_borrow(|frames| frames.iter().find(|frame| frame.id == self.id)?.unsupported.clone())
    }

    /// This scope's own frame, wherever it lies: scopes need not be closed in the reverse order of their opening (a
    /// guard assigned over the one before is opened before that one is dropped).
    fn take(&self) -> Option<Frame> {
        FRAMES.with_borrow_mut(|frames| {
            let position = frames.iter().rposition(|frame| frame.id == self.id)?;
            Some(frames.remove(position))
        })
    }
}

impl Drop for CaptureScope {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Whether a scope that captures is open on this thread.
pub fn is_active() -> bool {
    FRAMES.with_borrow(|frames| frames.last().is_some_and(|frame| frame.kind != ScopeKind::Idle))
}

/// Whether a parameter is trained, be it in training now or in a model for validation, where gradients rest.
fn is_trained<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let value = param.val();
    match value.is_autodiff() {
        // It may have been computed from what is trained.
        true => value.is_require_grad() || value.is_tracked(),
        // `valid()` suspends gradients and remembers the setting; `train()` brings it back.
        false => param.clone().train().is_require_grad(),
    }
}

/// Whether a layer has a bias that is trained. Where inputs alone are noted nobody asks, and it is not found out: that
/// makes burn keep a root of each call until the next backward pass, and there is none.
pub fn has_trained_bias(bias: Option<&Param<Tensor<1>>>) -> bool {
    let inputs_alone =
        || FRAMES.with_borrow(|frames| frames.last().is_some_and(|frame| frame.kind == ScopeKind::Inputs));
    bias.is_some_and(|bias| inputs_alone() || is_trained(bias))
}

/// Whether [`observe`] would note a call of the layer with this output: for layers whose input takes work to be put
/// into the form that it asks for.
pub fn observes<const D: usize>(weight: &Param<Tensor<D>>, output: &Tensor<3>) -> bool {
    FRAMES.with_borrow_mut(|frames| frames.last_mut().is_some_and(|frame| frame.takes(weight, output)))
}

/// Called by a captured layer after its forward pass: notes the call and taps the output. `weight` is the layer's.
///
/// `output` is in the layout that [`LayerInput`] prescribes, `[batch, positions, outputs]` or
/// `[batch, outputs, positions]`.
pub fn observe<const D: usize>(
    weight: &Param<Tensor<D>>,
    shape: LayerShape,
    input: LayerInput,
    output: Tensor<3>,
) -> Tensor<3> {
    let id = weight.id;
    FRAMES.with_borrow_mut(|frames| {
        let Some(frame) = frames.last_mut() else { return output };
        if !frame.takes(weight, &output) {
            return output;
        }
        if frame.kind == ScopeKind::Inputs {
            let like = Tensor::empty([1, 1, 1], &output.device());
            let batch = output.dims()[0];
            frame.note(id, shape, LayerCall { input, batch, like, slot: Slot::default() });
            return output;
        }
        // Of a frozen model, at its first layer.
        let output = if output.is_tracked() { output } else { output.autodiff().require_grad() };
        let device = output.device();
        if !is_supported(&device) {
            frame.unsupported = Some(device);
            return output;
        }
        let slot = Slot::of_first(frame.most);
        let (batch, input) = (output.dims()[0], input.first(frame.most));
        let output = tap(output, &slot);
        // A value of its own: a clone of the output would keep the forward pass from working in place.
        let like = Tensor::empty([1, 1, 1], &output.device().inner());
        frame.note(id, shape, LayerCall { input, batch, like, slot });
        output
    })
}

/// Called by a layer in place of [`observe`] if its inputs are too long to be captured.
pub fn refuse(refused: Refused) {
    FRAMES.with_borrow_mut(|frames| {
        if let Some(frame) = frames.last_mut() {
            frame.refused.get_or_insert(refused);
        }
    });
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::super::layer::LayerGradients;
    use super::*;
    use crate::nn::conv::{Conv2d, Conv2dConfig};
    use crate::nn::{Linear, LinearConfig};

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
        linear: Linear,
    }

    #[test]
    fn a_scope_of_the_first_samples_holds_no_others() {
        const SAMPLES: usize = 7;
        const KEPT: usize = 3;
        let device = Device::flex().autodiff();
        let net = Net {
            conv: Conv2dConfig::new([2, 3], [3, 3]).init(&device),
            linear: LinearConfig::new(3, 2).init(&device),
        };
        let images = Tensor::<4>::random([SAMPLES, 2, 5, 5], Distribution::Default, &device);
        let captured = |most: usize| {
            let scope = CaptureScope::open_of(most, ScopeKind::Training);
            let features = net.conv.forward(images.clone()).mean_dim(3).mean_dim(2).reshape([SAMPLES, 3]);
            let _ = net.linear.forward(features).square().sum().backward();
            scope.finish().into_iter().map(|layer| layer.into_gradients()).collect::<Vec<_>>()
        };
        let (all, first) = (captured(usize::MAX), captured(KEPT));
        assert_eq!((all.len(), first.len()), (2, 2));
        for (all, first) in all.iter().zip(&first) {
            assert_eq!((all.samples(), first.samples()), (SAMPLES, SAMPLES), "of the batch");
            let [call] = &first.calls[..] else { panic!("one call, not {}", first.calls.len()) };
            let held = match &call.input {
                LayerInput::Features(x) => x.dims()[0],
                LayerInput::Image(x, _) => x.dims()[0],
            };
            assert_eq!((held, call.gradient.dims()[0]), (KEPT, KEPT));
            let [got, expected] = [(first, usize::MAX), (all, KEPT)]
                .map(|(layer, samples)| layer.covariance_sums(samples, 1.0).expect("a backward pass"));
            assert_eq!(got.positions, expected.positions);
            for (got, expected) in [(got.activation, expected.activation), (got.gradient, expected.gradient)]
            {
                let off: f32 = (got - expected).abs().max().into_scalar();
                assert!(off < 1e-5, "{off}");
            }
            let gradients = |layer: &LayerGradients, samples| {
                Tensor::cat(layer.first_sample_gradients(samples, None).expect("gradients").collect(), 0)
            };
            let off: f32 = (gradients(first, SAMPLES) - gradients(all, KEPT)).abs().max().into_scalar();
            assert!(off < 1e-5, "{off}");
        }
    }
}
