//! The layer-cosine rule: which samples of the suspect's label point the way that the suspect does, in every layer.
//!
//! For the suspect (x′, y′) and the training samples j with label y′, in the metric of the preconditioner:
//!
//! 1. u_jl = unit direction of the gradient of j's margin logsumexp_{c≠y} z_c − z_y in layer l; q_l = that of the logit
//!    z_{y′}(x′). The margin has the direction of the loss gradient without its factor 1 − p, which underflows on
//!    fitted samples.
//! 2. v_j = −mean_l ⟨u_jl, q_l⟩. Backdoor samples are easy, their loss gradients tiny: unit length keeps them in sight.
//! 3. Otsu's split of v, its separation D. D below [`min_separation`](LayerCosine::min_separation): nothing stands out,
//!    nothing is flagged.
//! 4. Refinement: with F the upper group, s_j = mean_{i∈F} C_ij − mean_{i∉F} C_ij, C_ij = mean_l ⟨u_il, u_jl⟩, i ≠ j; F
//!    becomes {s > Otsu(s)} until it stays. The means are inner products with summed directions: a round is linear in
//!    the class.
//!
//! Cost: a pass over the samples of one label, a cheaper one and a part of one per round of refinement.

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::capture::{BatchSource, PassConfig};
use crate::influence::{
    Classifier, Cosines, ImageList, Influence, InfluenceError, LabeledBatch, Logit, Margin,
};

use super::group::{Refinement, RefinementSteps, above};
use super::otsu::otsu;

/// Settings of the layer-cosine rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerCosine {
    /// Smallest separation D of the two groups at which samples are flagged. 3.5 lies between clean queries (3.22 at
    /// most in first trials) and attacked ones (4.00 at least); it was set by eye and awaits a calibration.
    pub min_separation: f64,
    /// Rounds of refinement at most; 0 keeps the first split.
    pub max_rounds: usize,
}

impl Default for LayerCosine {
    fn default() -> Self {
        Self { min_separation: 3.5, max_rounds: 10 }
    }
}

/// What the rule found for one suspect.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerCosineFinding {
    /// D of the first split; `None` if the values could not be split.
    pub separation: Option<f64>,
    /// Flagged samples, as positions in the slice of candidates.
    pub flagged: Vec<usize>,
    /// The last statistic of every candidate: v, or s after refinement.
    pub scores: Vec<f64>,
}

impl LayerCosine {
    /// Applies the rule to several suspects of one label. `candidates` are the positions of the samples with that
    /// label.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn apply<M, S>(
        &self,
        influence: &Influence<'_, M>,
        source: &S,
        candidates: &[usize],
        suspects: &ImageList,
        config: &PassConfig,
    ) -> Result<Vec<LayerCosineFinding>, InfluenceError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        let queries = influence.queries(suspects, &Logit, config)?;
        let Cosines { rows, norms } = influence.cosines(source, candidates, &Margin, &queries, config)?;
        let refinement = Refinement {
            influence,
            source,
            candidates,
            config,
            cut: |values| otsu(values).map(|split| split.threshold),
        };
        let mut steps = RefinementSteps::default();
        let mut findings = Vec::with_capacity(suspects.len());
        for row in rows {
            let v: Vec<f64> = row.into_iter().map(|cosine| -cosine).collect();
            let split = otsu(&v);
            let separation = split.map(|split| split.separation);
            let mut finding = LayerCosineFinding { separation, flagged: Vec::new(), scores: v };
            if let Some(split) = split.filter(|split| split.separation >= self.min_separation) {
                finding.flagged = above(&finding.scores, split.threshold);
                if self.max_rounds > 0 {
                    (finding.flagged, finding.scores) =
                        refinement.run(&finding.flagged, &norms, self.max_rounds, &mut steps)?;
                }
            }
            findings.push(finding);
        }
        Ok(findings)
    }
}
