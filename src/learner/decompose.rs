//! From what a collector has gathered to factors.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ParamId};

use crate::capture::{ModelInventory, PassError, on_device};
use crate::factors::{
    EigenConfig, FactorError, FactorSource, KroneckerFactors, LayerCovariances, LayerFactors, Provenance,
};
use crate::items::caught;

use super::collector::Collector;
use super::eigenvalues::FixedBases;
use super::state::State;

/// Layer paths by the identity of the layer's weight.
type Names = HashMap<ParamId, String>;

impl Collector {
    /// The factors gathered so far, as those of `model` with its present weights, in training or validation mode.
    /// Collecting can go on. Give it the model that is to be audited.
    ///
    /// With [`CollectorConfig::basis_every`](super::CollectorConfig::basis_every) they have EK-FAC eigenvalues, in the
    /// latest bases for which at least half as many samples were summed as for the bases before; else (or if training
    /// ended before there were any) K-FAC's.
    ///
    /// # Errors
    /// [`FactorError::Nothing`] if no step was collected or `model` has none of the layers seen;
    /// [`FactorError::Diverged`] if no step had finite values; [`FactorError::Eigen`];
    /// [`PassError::Device`](crate::capture::PassError::Device) where the device was lost.
    pub fn factors<M: Module>(&self, model: &M) -> Result<KroneckerFactors, FactorError> {
        let device = model.devices().into_iter().next().unwrap_or_default();
        on_device(&device, "factors", || self.factors_of(model))
    }

    fn factors_of<M: Module>(&self, model: &M) -> Result<KroneckerFactors, FactorError> {
        let _span = tracing::info_span!("factors").entered();
        // The fingerprint is that of the model in validation mode, which is what an audit sees: batch norm's running
        // statistics are brought up to date by `valid()`.
        let inventory = ModelInventory::of(&model.valid());
        let mut state = self.lock();
        let names = state.keyed(inventory.layer_names());
        if state.stats.collected_steps == 0 {
            return Err(self.nothing(&state));
        }
        let covariances = self.covariances(&mut state, &names)?;
        if covariances.is_empty() {
            let reason = "none of the layers that were seen in training belongs to this model. Give the one that was trained, as it is after the training"
                .to_owned();
            return Err(FactorError::Nothing { reason });
        }
        let mut provenance = self.provenance(&state, &inventory);
        let channels = channels(&state, &names);
        let (corrected, left) = match usable_bases(&mut state) {
            Some(bases) => {
                let samples = bases.samples;
                let (corrected, left) = in_bases(bases, &names, covariances);
                // Of layers that came into use later none is corrected.
                provenance.eigenvalue_samples = if corrected.is_empty() { 0 } else { samples };
                (corrected, left)
            }
            None => (BTreeMap::new(), covariances),
        };
        drop(state);
        // Without bases, and layers that came into use after they were fixed.
        let mut layers = self.decompose(left, &channels)?;
        layers.extend(corrected);
        KroneckerFactors::from_layers(layers, provenance)
    }

    /// Why there are no factors.
    fn nothing(&self, state: &State) -> FactorError {
        if let Some(device) = &state.unsupported {
            return PassError::backend(device).into();
        }
        let (steps, skipped) = (state.stats.steps, state.stats.skipped_steps);
        if let Some(said) = &state.first_failure {
            let reason = format!(
                "{skipped} steps were to be collected, and collecting failed: {said}. If memory is short, collect fewer samples of a step \
                 (`samples_per_step`)"
            );
            return FactorError::Nothing { reason };
        }
        match &state.first_skipped {
            Some((step, layer)) => FactorError::Diverged { skipped, step: *step, layer: layer.clone() },
            None => {
                let warmup = self.config.warmup_steps;
                let reason = match state.empty_steps {
                    0 => format!(
                        "{steps} steps were seen, {warmup} of warm-up come first. Collect more of them (`every`, `warmup_steps`), or fit factors \
                         with `KroneckerFactors::fit`"
                    ),
                    empty => return FactorError::EmptySteps { empty },
                };
                FactorError::Nothing { reason }
            }
        }
    }

    fn provenance(&self, state: &State, inventory: &ModelInventory) -> Provenance {
        let settings = serde_json::to_value(&*self.config).unwrap_or_default();
        let stats = state.stats;
        Provenance {
            steps: stats.steps,
            collected_steps: stats.collected_steps,
            skipped_steps: stats.skipped_steps,
            samples: stats.samples,
            ..Provenance::new(FactorSource::Training, inventory, settings)
        }
    }

    fn decompose(
        &self,
        covariances: BTreeMap<String, LayerCovariances>,
        channels: &HashMap<String, usize>,
    ) -> Result<BTreeMap<String, LayerFactors>, FactorError> {
        let config = EigenConfig { max_size: self.config.max_eigen_size };
        KroneckerFactors::decompose(covariances, &config, |layer| channels.get(layer).copied().unwrap_or(1))
    }

    /// The covariances of every layer with a name, over all devices.
    fn covariances(
        &self,
        state: &mut State,
        names: &Names,
    ) -> Result<BTreeMap<String, LayerCovariances>, FactorError> {
        let mut covariances: BTreeMap<String, LayerCovariances> = BTreeMap::new();
        // The latest step weighs 1, wherever the origin lies: runs of different length can be merged.
        let latest = state.exponent(self.config.half_life_steps, state.latest).exp2();
        for (id, sums) in &mut state.layers {
            let Some(layer) = names.get(id) else { continue };
            for moments in sums.parts().filter(|moments| !moments.is_forgotten()) {
                let mut part = moments.covariances(layer)?;
                part.weight /= latest;
                match covariances.get_mut(layer) {
                    Some(total) => total.merge(&part),
                    None => drop(covariances.insert(layer.clone(), part)),
                }
            }
        }
        Ok(covariances)
    }

    /// The covariances so far, if it is time to fix eigenbases from them for the steps that follow, and nobody is at
    /// it.
    pub(super) fn covariances_for_bases(&self, state: &mut State, step: usize) -> Option<ForBases> {
        let before = state.bases.as_ref().map_or(self.config.warmup_steps, |bases| bases.step);
        // What can't be decomposed is not tried at every step.
        let before = before.max(state.failed_bases);
        let is_due = self.config.basis_every.is_some_and(|every| step >= every.saturating_add(before));
        if !is_due || state.fixes_bases {
            return None;
        }
        let names: Names = state.layers.keys().map(|id| (*id, state.name(id))).collect();
        let channels = channels(state, &names);
        let covariances = self.covariances(state, &names);
        // Only now: reading the sums from a device that is lost panics.
        state.fixes_bases = true;
        Some(ForBases { covariances, names, channels })
    }

    /// New bases, or why there are none. A panic is no reason to end the training, nor to fix none ever after.
    pub(super) fn fix_bases(&self, due: ForBases, step: usize) -> Result<FixedBases, String> {
        let _span = tracing::debug_span!("fix_bases", step).entered();
        match caught(|| self.new_bases(due, step)) {
            Ok(bases) => bases.map_err(|error| error.to_string()),
            Err(said) => Err(format!("decomposing the covariances panicked: {said}")),
        }
    }

    fn new_bases(&self, due: ForBases, step: usize) -> Result<FixedBases, FactorError> {
        let ForBases { covariances, names, channels } = due;
        let mut layers = self.decompose(covariances?, &channels)?;
        let layers = names.into_iter().filter_map(|(id, layer)| Some((id, layers.remove(&layer)?)));
        Ok(FixedBases::new(step, layers))
    }
}

/// What eigenbases are fixed from.
pub(super) struct ForBases {
    covariances: Result<BTreeMap<String, LayerCovariances>, FactorError>,
    names: Names,
    channels: HashMap<String, usize>,
}

impl State {
    pub(super) fn install_bases(&mut self, bases: Result<FixedBases, String>, step: usize) {
        self.fixes_bases = false;
        match bases {
            Ok(bases) => {
                self.earlier_bases = self.bases.replace(bases);
                // Nothing is added to them any more.
                self.earlier_bases.iter_mut().for_each(FixedBases::leave_devices);
            }
            Err(error) => {
                tracing::warn!(step, %error, "no new eigenbases: those before are kept");
                self.failed_bases = step;
            }
        }
    }
}

/// Inputs of one channel by layer path.
fn channels(state: &State, names: &Names) -> HashMap<String, usize> {
    let layers = state.layers.iter();
    layers.filter_map(|(id, sums)| Some((names.get(id)?.clone(), sums.channel))).collect()
}

/// The latest bases, or those before where the latest have seen too little; `None` if there are none with samples.
fn usable_bases(state: &mut State) -> Option<&mut FixedBases> {
    let bases = match (&state.bases, &state.earlier_bases) {
        (Some(latest), Some(earlier)) if 2 * latest.samples < earlier.samples => &mut state.earlier_bases,
        _ => &mut state.bases,
    };
    bases.as_mut().filter(|bases| bases.samples > 0)
}

/// Factors with corrected eigenvalues, and the covariances of layers that have none.
fn in_bases(
    bases: &mut FixedBases,
    names: &Names,
    covariances: BTreeMap<String, LayerCovariances>,
) -> (BTreeMap<String, LayerFactors>, BTreeMap<String, LayerCovariances>) {
    let ids: HashMap<&String, ParamId> = names.iter().map(|(id, layer)| (layer, *id)).collect();
    let (mut layers, mut left) = (BTreeMap::new(), BTreeMap::new());
    for (layer, covariances) in covariances {
        let dims = covariances.shape.dims();
        let found = ids.get(&layer).and_then(|id| bases.eigenvalues(*id));
        match found.filter(|(.., corrected)| corrected.shape() == dims) {
            Some((activation, gradient, corrected)) => {
                let corrected = Some(corrected);
                layers.insert(layer, LayerFactors { covariances, activation, gradient, corrected });
            }
            None => drop(left.insert(layer, covariances)),
        }
    }
    (layers, left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::LayerShape;
    use crate::factors::MatrixStack;
    use crate::learner::CollectorConfig;

    #[test]
    fn a_panic_while_bases_are_fixed_leaves_those_before_and_others_can_be_fixed() {
        let config = CollectorConfig::new().with_warmup_steps(0).with_basis_every(Some(1));
        let collector = Collector::new(config).unwrap();
        // No square matrices.
        let stack = MatrixStack::zeros([2, 3, 1]);
        let shape = LayerShape { groups: 2, outputs: 3, inputs: 3, bias: false };
        let covariances = LayerCovariances { shape, activation: stack.clone(), gradient: stack, weight: 1.0 };
        let due = ForBases {
            covariances: Ok(BTreeMap::from([("layer".to_owned(), covariances)])),
            names: Names::new(),
            channels: HashMap::new(),
        };
        collector.lock().fixes_bases = true;
        let bases = collector.fix_bases(due, 1);
        assert!(bases.as_ref().is_err_and(|said| said.contains("panicked")), "{bases:?}");
        let mut state = collector.lock();
        state.install_bases(bases, 1);
        assert!(!state.fixes_bases && state.bases.is_none());
        let mut due = |step: usize| collector.covariances_for_bases(&mut state, step).is_some();
        assert!(!due(1) && due(2), "not at once, but after as many steps as ever");
    }
}
