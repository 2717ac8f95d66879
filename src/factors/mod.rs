//! Kronecker factors: from a batch's covariances to eigenbases and eigenvalues.
//!
//! | step | formula |
//! | --- | --- |
//! | covariances | A = 1/M Σ a aᵀ, S = 1/M Σ g gᵀ, M = samples × positions |
//! | eigenbases | A = U_A Λ_A U_Aᵀ, S = U_S Λ_S U_Sᵀ, symmetrised, in f64 (large ones in f32, see [`EigenConfig`]) |
//! | eigenvalues | K-FAC: L_ij = λS_i·λA_j; EK-FAC: L = 1/N Σ_n (U_Sᵀ G_n U_A)² |
//!
//! g is the gradient of the *summed* loss with respect to a layer's output (George et al. 2018, arXiv 1806.03884;
//! Grosse et al. 2023, arXiv 2308.03296).

mod eigen;
mod error;
mod file;
mod fit;
mod kronecker;
mod moments;
mod stack;

pub(crate) use eigen::small_eigen;
pub use eigen::{Eigen, EigenConfig};
pub use error::FactorError;
pub(crate) use file::{read_stack, stored_stack};
pub use kronecker::{CONVENTIONS, FactorSource, KroneckerFactors, LayerFactors, Provenance};
pub use moments::LayerCovariances;
pub(crate) use moments::{LayerMoments, MomentSums};
pub use stack::MatrixStack;
pub(crate) use stack::RunningSum;
