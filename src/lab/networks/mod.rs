//! Networks for the examples and benchmarks, built from captured layers.
