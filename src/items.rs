//! One sample of a data set, taken so that whatever goes wrong in the user's code names the sample.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::data::dataset::Dataset;

use crate::capture::PassError;

/// What `take` makes of the sample at `index`. A data set that panics there, or an item that does when it is asked for
/// its image, is an error as any other: on the thread that loads batches a panic would end the whole pass without a
/// word on where it was.
pub(crate) fn of_sample<I, D, T>(data: &D, index: usize, take: impl FnOnce(&I) -> T) -> Result<T, PassError>
where
    D: Dataset<I>,
{
    let failed = |source| PassError::Sample { index, source };
    match caught(|| data.get(index).map(|item| take(&item))) {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(error)) => Err(failed(Box::new(error))),
        Err(said) => Err(failed(format!("its data set panicked: {said}").into())),
    }
}

/// Refuses an image of another shape than the images before it.
pub(crate) fn check_shape(index: usize, got: [usize; 3], expected: [usize; 3]) -> Result<(), PassError> {
    if got == expected {
        return Ok(());
    }
    let source = format!("its shape is {got:?}, that of others {expected:?}: resize the images").into();
    Err(PassError::Sample { index, source })
}

/// At most `most` (2 or more) of the places `0..length`, spread evenly, the first and the last among them.
pub(crate) fn spread(length: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = length.min(most);
    let steps = count.saturating_sub(1).max(1);
    (0..count).map(move |step| (step as u128 * (length - 1) as u128 / steps as u128) as usize)
}

/// What `work` returns, or what it says where it panics.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Whatever the panic left half-done is not looked at again.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn places_are_spread_from_the_first_to_the_last() {
        let places = |length, most| spread(length, most).collect::<Vec<_>>();
        assert!(places(0, 4).is_empty());
        assert_eq!(places(1, 4), [0]);
        assert_eq!(places(4, 4), [0, 1, 2, 3]);
        assert_eq!(places(8, 4), [0, 2, 4, 7]);
        assert_eq!(places(1_000_001, 3), [0, 500_000, 1_000_000]);
    }
}
