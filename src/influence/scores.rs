//! Scores: what a pass over the training data returns.

use super::pending::Sink;
use super::{Queries, ScoreOptions};

/// Scores of all queries with the samples of one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Positions of the samples in the data set.
    pub samples: Vec<usize>,
    queries: usize,
    /// `[queries, samples]`.
    values: Vec<f64>,
    /// ⟨G_n, P(G_n)⟩ summed over layers, by sample: the influence of a sample on its own objective. Empty if it was
    /// left out.
    pub self_influence: Vec<f64>,
    /// ‖G_n‖² summed over layers, by sample. Empty where self-influence is.
    pub squared_norm: Vec<f64>,
    layers: Vec<(String, LayerScores)>,
    per_layer: bool,
    filled: usize,
}

/// Scores of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerScores {
    samples: usize,
    /// `[queries, samples]`.
    values: Vec<f64>,
    /// ⟨G_n, P(G_n)⟩ in this layer, by sample. Empty if it was left out.
    pub self_influence: Vec<f64>,
}

impl LayerScores {
    /// Those of several parts, each with its samples; zeros where a layer took no part.
    fn concat(parts: Vec<(usize, Option<Self>)>, queries: usize) -> Self {
        let samples = parts.iter().map(|(samples, _)| samples).sum();
        let mut values = Vec::with_capacity(queries * samples);
        for query in 0..queries {
            for (samples, part) in &parts {
                match part {
                    Some(part) => values.extend_from_slice(part.row(query)),
                    None => values.extend(std::iter::repeat_n(0.0, *samples)),
                }
            }
        }
        let mut own = parts.iter().filter_map(|(_, part)| part.as_ref());
        let mut self_influence = Vec::new();
        if own.any(|part| !part.self_influence.is_empty()) {
            for (samples, part) in &parts {
                let before = self_influence.len();
                self_influence.extend(part.iter().flat_map(|part| &part.self_influence));
                self_influence.resize(before + samples, 0.0);
            }
        }
        Self { samples, values, self_influence }
    }

    /// The scores of one query, by sample.
    pub fn row(&self, query: usize) -> &[f64] {
        &self.values[query * self.samples..(query + 1) * self.samples]
    }
}

impl Scores {
    pub(super) fn new(samples: &[usize], queries: &Queries, options: ScoreOptions) -> Self {
        let (count, queries) = (samples.len(), queries.len());
        let own = if options.self_influence { count } else { 0 };
        Self {
            samples: samples.to_vec(),
            queries,
            values: vec![0.0; queries * count],
            self_influence: vec![0.0; own],
            squared_norm: vec![0.0; own],
            layers: Vec::new(),
            per_layer: options.per_layer,
            filled: 0,
        }
    }

    /// Scores from their values, `[queries, samples]`, with self-influence and squared norms or without either.
    pub(super) fn from_parts(
        samples: Vec<usize>,
        queries: usize,
        values: Vec<f64>,
        own: [Vec<f64>; 2],
    ) -> Self {
        let [self_influence, squared_norm] = own;
        let filled = samples.len();
        Self { samples, queries, values, self_influence, squared_norm, filled, ..Self::default() }
    }

    /// The samples of several, one after the other; all have the same queries. A layer that took no part in some of
    /// them has no scores there.
    pub(super) fn concat(parts: Vec<Self>) -> Self {
        let Some(first) = parts.first() else { return Self::default() };
        let (queries, per_layer) = (first.queries, first.per_layer);
        let row = |query| parts.iter().flat_map(move |part| part.row(query));
        let values = (0..queries).flat_map(row).copied().collect();
        let samples: Vec<usize> = parts.iter().flat_map(|part| &part.samples).copied().collect();
        let own = parts.iter().flat_map(|part| &part.self_influence).copied().collect();
        let norms = parts.iter().flat_map(|part| &part.squared_norm).copied().collect();
        let mut paths: Vec<&String> = Vec::new();
        for (path, _) in parts.iter().flat_map(|part| &part.layers) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let layers = paths.into_iter().map(|path| {
            let of = |part: &'_ Self| {
                part.layers.iter().find(|(name, _)| name == path).map(|(_, layer)| layer.clone())
            };
            let layer: Vec<(usize, Option<LayerScores>)> =
                parts.iter().map(|part| (part.samples.len(), of(part))).collect();
            (path.clone(), LayerScores::concat(layer, queries))
        });
        let layers = layers.collect();
        Self { layers, per_layer, ..Self::from_parts(samples, queries, values, [own, norms]) }
    }

    /// All values, `[queries, samples]`.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// The scores of one query, in the order of [`samples`](Self::samples).
    pub fn row(&self, query: usize) -> &[f64] {
        &self.values[query * self.samples.len()..(query + 1) * self.samples.len()]
    }

    /// Per-layer scores by path; empty unless they were asked for.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = (&str, &LayerScores)> {
        self.layers.iter().map(|(layer, scores)| (layer.as_str(), scores))
    }
}

impl Sink for Scores {
    fn advance(&mut self) {
        self.filled += 1;
    }

    /// [scores…] or [scores…, self-influence, squared norm].
    fn add(&mut self, layer: &str, row: &[f64]) {
        let (count, queries, position) = (self.samples.len(), self.queries, self.filled);
        for (query, score) in row[..queries].iter().enumerate() {
            self.values[query * count + position] += score;
        }
        if let &[own, norm] = &row[queries..] {
            self.self_influence[position] += own;
            self.squared_norm[position] += norm;
        }
        if !self.per_layer {
            return;
        }
        let known = self.layers.iter().position(|(name, _)| name == layer);
        let known = known.unwrap_or_else(|| {
            let scores = LayerScores {
                samples: count,
                values: vec![0.0; queries * count],
                self_influence: vec![0.0; self.self_influence.len()],
            };
            self.layers.push((layer.to_owned(), scores));
            self.layers.len() - 1
        });
        let scores = &mut self.layers[known].1;
        for (query, score) in row[..queries].iter().enumerate() {
            scores.values[query * count + position] = *score;
        }
        if let Some(own) = row.get(queries) {
            scores.self_influence[position] = *own;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LayerScores, Scores};

    #[test]
    fn a_layer_that_the_first_part_did_without_is_kept() {
        let part = |sample: usize, layers: &[(&str, f64)]| {
            let layer =
                |value: f64| LayerScores { samples: 1, values: vec![value], self_influence: vec![value] };
            let layers = layers.iter().map(|(path, value)| ((*path).to_owned(), layer(*value))).collect();
            Scores { layers, ..Scores::from_parts(vec![sample], 1, vec![0.5], [vec![1.0], vec![1.0]]) }
        };
        let whole =
            Scores::concat(vec![part(3, &[("first", 1.0)]), part(4, &[("first", 2.0), ("branch", 3.0)])]);
        let layers: Vec<_> =
            whole.layers().map(|(path, layer)| (path, layer.row(0), &layer.self_influence[..])).collect();
        let expected: [(&str, &[f64], &[f64]); 2] =
            [("first", &[1.0, 2.0], &[1.0, 2.0]), ("branch", &[0.0, 3.0], &[0.0, 3.0])];
        assert_eq!(layers, expected);
    }
}
