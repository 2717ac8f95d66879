//! What a collector has gathered, and how much each step of it weighs.

use std::collections::{BTreeMap, HashMap};

use burn::module::ParamId;
use burn::tensor::Device;

use crate::capture::{CovarianceSums, LayerShape, ModelInventory};
use crate::factors::{LayerMoments, MomentSums};

use super::eigenvalues::FixedBases;
use super::stats::{Clock, CollectorStats};

#[derive(Debug, Default)]
pub(super) struct State {
    /// The model that is watched, or that a file was read for.
    pub model: WatchedModel,
    /// Identities that records brought, and under which ones the sums of the same parameters are kept.
    pub aliases: HashMap<ParamId, ParamId>,
    /// Whether a file was read, and no model has been watched since.
    pub waits: bool,
    pub stats: CollectorStats,
    pub clock: Clock,
    /// The first step that was left out, and the layer with values that are not finite.
    pub first_skipped: Option<(usize, String)>,
    /// What the first step said at which collecting panicked; of this run alone.
    pub first_failure: Option<String>,
    /// Steps that were to be collected and in which no captured layer ran backward; of this run alone.
    pub empty_steps: usize,
    /// A device whose backend this crate was built without.
    pub unsupported: Option<Device>,
    /// Running sums by layer.
    pub layers: BTreeMap<ParamId, LayerSums>,
    /// The eigenbases in which squared gradients are summed now, and those before them.
    pub bases: Option<FixedBases>,
    pub earlier_bases: Option<FixedBases>,
    /// The latest step at which new ones were to be fixed, and were not.
    pub failed_bases: usize,
    /// Whether a thread is at new ones.
    pub fixes_bases: bool,
    /// Whether it was said that a layer does not see the batch; of this run alone.
    pub is_uneven: bool,
    /// Whether it was said that no layer saw as many samples as the loop said; of this run alone.
    pub is_of_other_size: bool,
    /// The step whose weight is 1. A step s weighs 2^((s − origin) / half-life).
    pub origin: usize,
    /// The latest step collected.
    pub latest: usize,
    /// The epoch whose checkpoint this went on from.
    pub resumed: Option<usize>,
}

/// What is known of the model that is watched.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchedModel {
    /// Layer paths, by the identities under which sums are kept.
    pub names: HashMap<ParamId, String>,
    /// [`ModelInventory::architecture`]
    pub architecture: String,
    /// [`ModelInventory::sketch`]
    pub sketch: BTreeMap<String, f64>,
}

/// Running sums of one layer.
#[derive(Debug)]
pub(super) struct LayerSums {
    /// Inputs of one channel: blocks of a decomposition hold whole ones.
    pub channel: usize,
    /// What was read from a file, until a device goes on from it.
    resumed: Option<LayerMoments>,
    /// One entry per device that the layer ran on.
    devices: Vec<(Device, LayerMoments)>,
}

/// Said where the sums of a file, or bases, can't be gone on from.
pub(super) const OTHER_SHAPE: &str =
    "what is known of a layer is of another shape than the layer: it is left out, and the layer begins anew";

/// Past this power of two the weights are brought back to 1, long before f32 sums could overflow.
const MAX_WEIGHT_EXPONENT: f64 = 8.0;

impl State {
    /// A layer's path, for messages. `id` is a [`key`](Self::key).
    pub fn name(&self, id: &ParamId) -> String {
        self.model.names.get(id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// The identity under which the sums of a parameter are kept.
    pub fn key(&self, id: ParamId) -> ParamId {
        self.aliases.get(&id).copied().unwrap_or(id)
    }

    /// Paths by the identities under which sums are kept.
    pub fn keyed(&self, names: HashMap<ParamId, String>) -> HashMap<ParamId, String> {
        names.into_iter().map(|(id, name)| (self.key(id), name)).collect()
    }

    /// Notes that a record was loaded, which brings identities of its own: of each parameter the one before and the one
    /// after. Nothing is moved: the record may have been loaded into a clone, and the model itself go on with the
    /// identities that it had.
    pub fn note_loaded(&mut self, identities: impl IntoIterator<Item = (ParamId, ParamId)>) {
        for (before, after) in identities {
            let key = self.key(before);
            if !self.layers.contains_key(&after) && !self.model.names.contains_key(&after) {
                self.aliases.entry(after).or_insert(key);
            }
        }
    }

    /// Goes on with another instance of the model, in which layers of the same paths have other identities.
    pub fn adopt(&mut self, model: WatchedModel) {
        let ids: HashMap<&String, ParamId> = model.names.iter().map(|(id, path)| (path, *id)).collect();
        let names = self.model.names.iter();
        let same: HashMap<ParamId, ParamId> =
            names.filter_map(|(id, path)| Some((*id, *ids.get(path)?))).collect();
        let new = |id: ParamId| same.get(&id).copied().unwrap_or(id);
        self.layers =
            std::mem::take(&mut self.layers).into_iter().map(|(id, sums)| (new(id), sums)).collect();
        for bases in [&mut self.bases, &mut self.earlier_bases].into_iter().flatten() {
            bases.rename(new);
        }
        self.model = model;
    }

    /// (step − origin) / half-life; 0 where nothing is forgotten.
    pub fn exponent(&self, half_life: f64, step: usize) -> f64 {
        match half_life {
            0.0 => 0.0,
            half_life => step.saturating_sub(self.origin) as f64 / half_life,
        }
    }

    /// 2^((step − origin) / half-life); moves the origin, and everything gathered with it, before that grows large.
    pub fn weight(&mut self, half_life: f64, step: usize) -> f64 {
        let exponent = self.exponent(half_life, step);
        if exponent <= MAX_WEIGHT_EXPONENT {
            return exponent.exp2();
        }
        let factor = (-exponent).exp2();
        self.layers.values_mut().flat_map(LayerSums::parts).for_each(|moments| moments.scale(factor));
        for bases in [&mut self.bases, &mut self.earlier_bases].into_iter().flatten() {
            bases.scale(factor);
        }
        self.origin = step;
        1.0
    }

    /// Counts a step that is left out because of a layer.
    pub fn skip(&mut self, step: usize, id: &ParamId) {
        const MESSAGE: &str = "NaN or infinite activations or gradients: this step is not collected";
        self.stats.skipped_steps += 1;
        let (layer, skipped) = (self.name(id), self.stats.skipped_steps);
        // A diverged training would say it at every step to the end.
        match skipped.to_string().trim_end_matches('0') == "1" {
            true => tracing::warn!(step, layer, skipped, "{MESSAGE}"),
            false => tracing::debug!(step, layer, skipped, "{MESSAGE}"),
        }
        self.first_skipped.get_or_insert((step, layer));
    }

    /// Leaves out a step at which collecting panicked. Layers that were added up before the panic have it.
    pub fn fail(&mut self, step: usize, said: String) {
        self.stats.skipped_steps += 1;
        if self.first_failure.is_none() {
            tracing::warn!(
                step,
                said,
                "collecting failed, and training goes on: such steps are left out. If memory is short, collect fewer samples of a step \
                 (`samples_per_step`)"
            );
            self.first_failure = Some(said);
        }
    }

    /// Says, of a layer that is collected for the first time, that its sums are large.
    pub fn tell_wide(&self, id: &ParamId, shape: LayerShape) {
        /// 1 GiB: more than most models have in all.
        const MUCH: usize = 1 << 30;
        let bytes = shape.covariance_bytes();
        if bytes >= MUCH && !self.layers.contains_key(id) {
            tracing::warn!(
                layer = self.name(id),
                inputs = shape.width(),
                outputs = shape.outputs,
                mebibytes = bytes >> 20,
                "the covariances of a wide layer take so much memory, several times while they are added up and decomposed, and decomposing them long: build it \
                 from `burn::nn`, which leaves it out, or make its input smaller"
            );
        }
    }

    /// Says once that a layer was called with another number of samples than the others.
    pub fn tell_other_size(&mut self, step: usize, said: usize, seen: usize) {
        if !std::mem::replace(&mut self.is_of_other_size, true) {
            tracing::warn!(
                step,
                said,
                seen,
                "no layer was called with as many samples as `Collector::step` was told of: gradients are multiplied by that number, so that \
                 this step counts for more or less than it should. Give the number of samples of this very batch, the last of an epoch included"
            );
        }
    }

    pub fn tell_uneven(&mut self, step: usize, id: &ParamId, got: usize, expected: usize) {
        if !std::mem::replace(&mut self.is_uneven, true) {
            let layer = self.name(id);
            tracing::warn!(
                step,
                layer,
                got,
                expected,
                "a layer is called with another number of samples than the others: passes and audits refuse it. Keep the batch on the first axis \
                 of every call (`[batch, positions, features]` goes through a linear layer as it is), or build that layer from `burn::nn`, which \
                 leaves it out"
            );
        }
    }
}

impl WatchedModel {
    pub fn new(inventory: &ModelInventory) -> Self {
        let ModelInventory { architecture, sketch, .. } = inventory;
        // A layer that is frozen now may be trained, and collected, later.
        let names = inventory.all().map(|parameter| (parameter.id, parameter.layer().to_owned())).collect();
        Self { names, architecture: architecture.clone(), sketch: sketch.clone() }
    }
}

impl LayerSums {
    pub fn new(channel: usize) -> Self {
        Self { channel, resumed: None, devices: Vec::new() }
    }

    /// Sums that were read from a file.
    pub fn resume(channel: usize, sums: MomentSums) -> Self {
        Self { channel, resumed: Some(sums.into()), devices: Vec::new() }
    }

    /// Adds `weight` times the sums of one batch, on the device where they are.
    pub fn add(&mut self, shape: LayerShape, sums: CovarianceSums, weight: f64) {
        let device = sums.activation.device();
        if let Some((_, other)) =
            self.devices.iter().find(|(_, moments)| moments.shape().dims() != shape.dims())
        {
            tracing::warn!(before = ?other.shape(), now = ?shape, "a layer has another shape than before: its sums begin anew");
            (self.resumed, self.devices) = (None, Vec::new());
        }
        match self.devices.iter_mut().find(|(known, _)| *known == device) {
            Some((_, moments)) => moments.add(sums, weight),
            None => {
                let resumed = self.resumed.take().filter(|resumed| {
                    let fits = resumed.shape().dims() == shape.dims();
                    if !fits {
                        // As many weights in another arrangement: nothing that a collector wrote.
                        tracing::warn!(file = ?resumed.shape(), layer = ?shape, "{OTHER_SHAPE}");
                    }
                    fits
                });
                let mut moments = resumed.unwrap_or_else(|| LayerMoments::new(shape));
                moments.add(sums, weight);
                self.devices.push((device, moments));
            }
        }
    }

    /// What each device has, and what was read from a file.
    pub fn parts(&mut self) -> impl Iterator<Item = &mut LayerMoments> {
        self.resumed.iter_mut().chain(self.devices.iter_mut().map(|(_, moments)| moments))
    }

    /// The sums over all devices.
    pub fn sums(&mut self) -> Option<MomentSums> {
        self.parts().map(LayerMoments::sums).reduce(|mut total, part| {
            total.merge(&part);
            total
        })
    }
}
