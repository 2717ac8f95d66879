//! Networks drawn from a seed, in a process whose tests run side by side.

use std::sync::Mutex;

use burn::module::Module;
use burn::tensor::Device;

/// The network that `make` builds on the CPU, its weights drawn from `seed`. The CPU has one generator for all threads,
/// and burn draws weights when they are first looked at: here they are all drawn before another test that calls this
/// may seed.
pub fn seeded<M: Module>(seed: u64, make: impl FnOnce() -> M) -> M {
    static DRAWING: Mutex<()> = Mutex::new(());
    let _alone = DRAWING.lock().unwrap();
    Device::flex().seed(seed);
    let model = make();
    let _drawn = model.clone().into_record();
    model
}
