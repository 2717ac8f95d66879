//! The capture scope: while one is open on a thread, every captured layer that runs there leaves its input and a tap.

use std::cell::RefCell;
use std::marker::PhantomData;

use burn::module::ParamId;
use burn::tensor::Tensor;

use super::layer::{LayerCall, LayerCapture, LayerInput, LayerShape};
use super::tap::{Slot, tap};

/// What a scope does with outputs that carry no graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    /// A training step: the loss will be differentiated with respect to the weights, so every layer that takes part has
    /// a tracked output. A layer without one (frozen, or an inference pass on the side) is left alone.
    Training,
    /// A frozen model: no weight requires a gradient, and the graph starts at the output of the first captured layer.
    /// Backward then computes neither weight gradients nor the gradient of the model's input.
    Frozen,
}

struct Frame {
    kind: ScopeKind,
    layers: Vec<LayerCapture>,
}

thread_local! {
    // A stack: a scope opened inside another (a nested training step) captures for itself alone.
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// An open capture scope on this thread. Forward and backward must run on the thread that opened it, which they do in
/// burn's `Learner`, workers of multi-device training included.
#[derive(Debug)]
#[must_use = "a scope captures until it is finished or dropped"]
pub struct CaptureScope {
    depth: usize,
    // The frame lives in a thread-local: the guard must not travel.
    _not_send: PhantomData<*const ()>,
}

impl CaptureScope {
    /// Opens a scope on this thread.
    pub fn open(kind: ScopeKind) -> Self {
        let depth = FRAMES.with_borrow_mut(|frames| {
            frames.push(Frame { kind, layers: Vec::new() });
            frames.len()
        });
        Self { depth, _not_send: PhantomData }
    }

    /// Closes the scope and returns what the layers left, in the order of their first call.
    ///
    /// Gradients are there once the backward pass is over: call it after `backward()`.
    pub fn finish(self) -> Vec<LayerCapture> {
        FRAMES.with_borrow_mut(|frames| {
            // Scopes opened later and leaked (mem::forget) lie above this one.
            frames.truncate(self.depth);
            frames.pop().map(|frame| frame.layers).unwrap_or_default()
        })
    }
}

impl Drop for CaptureScope {
    fn drop(&mut self) {
        FRAMES.with_borrow_mut(|frames| frames.truncate(self.depth - 1));
    }
}

/// Whether a scope is open on this thread.
pub fn is_active() -> bool {
    FRAMES.with_borrow(|frames| !frames.is_empty())
}

/// Called by a captured layer after its forward pass: notes the call and taps the output.
///
/// `output` is in the layout that [`LayerInput`] prescribes, `[batch, positions, outputs]` or
/// `[batch, outputs, positions]`.
pub fn observe(id: ParamId, shape: LayerShape, input: LayerInput, output: Tensor<3>) -> Tensor<3> {
    FRAMES.with_borrow_mut(|frames| {
        let Some(frame) = frames.last_mut() else { return output };
        let output = match (output.is_tracked(), frame.kind) {
            (true, _) => output,
            (false, ScopeKind::Training) => return output,
            (false, ScopeKind::Frozen) => output.autodiff().require_grad(),
        };
        let slot = Slot::default();
        let output = tap(output, &slot);
        let call = LayerCall { input, like: output.clone().without_autodiff(), slot };
        match frame.layers.iter_mut().find(|layer| layer.id == id) {
            Some(layer) => layer.calls.push(call),
            None => frame.layers.push(LayerCapture { id, shape, calls: vec![call] }),
        }
        output
    })
}
