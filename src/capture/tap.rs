//! The tap: an identity operation whose backward step hands out the gradient that passes through it.
//!
//! burn has no backward hooks, and gradients of intermediate tensors are dropped as soon as they have been used. The
//! tap keeps a clone (a reference count, no copy) of the gradient in a [`Slot`], or a copy of its first samples, from
//! which [`collect`] takes it out again once the backward pass is over.

// burn-tch is on its way out: it is here to measure with.
#![cfg_attr(feature = "tch", allow(deprecated))]

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

#[cfg(feature = "cubecl")]
use burn::backend::Cube;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
#[cfg(feature = "remote")]
use burn::backend::Remote;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{
    Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor,
};
use burn::tensor::{Device, IntDType, Tensor};

use crate::items::caught;

/// Where a tap leaves the gradient that passed through it, as the backend's own primitive.
#[derive(Clone)]
pub struct Slot {
    gradient: Arc<Mutex<Option<Box<dyn Any + Send>>>>,
    /// So many samples are kept, the first ones.
    most: usize,
}

impl Default for Slot {
    fn default() -> Self {
        Self::of_first(usize::MAX)
    }
}

impl Slot {
    /// Of no more than the first `most` samples.
    pub fn of_first(most: usize) -> Self {
        Self { gradient: Arc::default(), most }
    }

    /// Whether a backward pass has been through the tap since the gradient was last taken out.
    pub fn is_filled(&self) -> bool {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn fill(&self, gradient: Box<dyn Any + Send>) {
        *self.gradient.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    fn take<T: 'static>(&self) -> Option<T> {
        let content = self.gradient.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        content.downcast::<T>().ok().map(|primitive| *primitive)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_filled() { "Slot(filled)" } else { "Slot(empty)" })
    }
}

/// The two backend operations behind a tap.
#[backend_extension(Cube: cfg(feature = "cubecl"), LibTorch: cfg(feature = "tch"), Remote: cfg(feature = "remote"), Flex, Autodiff)]
pub trait TapBackend: Backend {
    /// Identity. With autodiff, the backward step leaves the gradient in the slot.
    fn tap(x: FloatTensor<Self>, _slot: Slot) -> FloatTensor<Self> {
        x
    }

    /// The gradient in the slot; `like` routes the call to the right backend and is what comes back from an empty slot.
    fn collect(like: FloatTensor<Self>, slot: Slot) -> FloatTensor<Self> {
        slot.take::<FloatTensor<Self>>().unwrap_or(like)
    }
}

impl TapBackend for Flex {}

#[cfg(feature = "cubecl")]
impl TapBackend for Cube {}

#[cfg(feature = "tch")]
impl TapBackend for LibTorch {}

// The graph is the client's: nothing crosses the network for a tap.
#[cfg(feature = "remote")]
impl TapBackend for Remote {}

#[derive(Debug)]
struct TapBackward;

impl<B: Backend> Backward<B, 1> for TapBackward {
    type State = Slot;

    fn backward(self, ops: Ops<Slot, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        ops.state.fill(Box::new(first::<B>(gradient.clone(), ops.state.most)));
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, gradient);
        }
    }
}

/// The first samples, copied: a slice would keep the memory of all.
fn first<B: Backend>(gradient: FloatTensor<B>, most: usize) -> FloatTensor<B> {
    if gradient.shape()[0] <= most {
        return gradient;
    }
    let places = B::int_arange(0..most as i64, &gradient.device(), IntDType::I32);
    B::float_select(gradient, 0, places)
}

impl<B: Backend + TapBackend, C: CheckpointStrategy> TapBackend for Autodiff<B, C> {
    fn tap(x: FloatTensor<Self>, slot: Slot) -> FloatTensor<Self> {
        let (primitive, guard) = x.into_parts();
        match TapBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(slot, primitive),
            OpsKind::UnTracked(prep) => prep.finish(primitive),
        }
    }

    fn collect(like: FloatTensor<Self>, _slot: Slot) -> FloatTensor<Self> {
        // Never routed here: `collect` below strips autodiff first. Identity keeps the contract all the same.
        like
    }
}

/// Passes `x` on; its gradient will be left in `slot` by the backward pass.
pub fn tap<const D: usize>(x: Tensor<D>, slot: &Slot) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as TapBackend>::tap(x.into_dispatch(), slot.clone()))
}

/// Whether a tap can be made on this device: burn may have been built with a backend that this crate was built without,
/// and panics then.
pub fn is_supported(device: &Device) -> bool {
    static KNOWN: RwLock<Vec<(Device, bool)>> = RwLock::new(Vec::new());
    let device = device.clone().inner();
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, supported)) = known.iter().find(|(known, _)| *known == device) {
        return *supported;
    }
    drop(known);
    let zeros = || Tensor::<1>::zeros([1], &device);
    let supported = caught(|| drop(tap(zeros(), &Slot::default()))).is_ok();
    // One that can do nothing at all may be a remote device that is back the next time.
    if supported || caught(|| drop(zeros())).is_ok() {
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).push((device, supported));
    }
    supported
}

/// Takes the gradient out of `slot`, without autodiff; `None` if no backward pass came through.
///
/// `like` is any tensor of the tapped tensor's rank on its device.
pub fn collect<const D: usize>(like: &Tensor<D>, slot: &Slot) -> Option<Tensor<D>> {
    if !slot.is_filled() {
        return None;
    }
    let like = like.clone().without_autodiff().into_dispatch();
    Some(Tensor::from_dispatch(<Dispatch as TapBackend>::collect(like, slot.clone())))
}
