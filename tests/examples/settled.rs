//! An image that a trigger does not change: whether an attack works on it is known from the model's answer without one.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use burn_delta_influence::lab::attacks::Trigger;
use burn_delta_influence::samples::Image;

/// 32 × 32 grey pixels with the trigger on them, again and again until it changes nothing any more.
pub fn settled(trigger: &dyn Trigger) -> Image {
    let mut image = Image::new(vec![0.5; 3 * 32 * 32], [3, 32, 32]).unwrap();
    loop {
        let again = trigger.apply(&image).unwrap();
        if again == image {
            return image;
        }
        image = again;
    }
}
