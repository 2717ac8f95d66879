//! What a probe counts.

use burn::tensor::Device;
use burn_delta_influence::unlearn::Probe;

use crate::tiny::{Tiny, image, samples, set};

#[test]
fn the_rate_without_the_trigger_comes_with_its_number_of_images() {
    // Labels 0 to 3 in turn, all of them recognised: five images of class 3, seventeen that are not of class 2.
    let clean = set(samples(22));
    let probe = Probe::new(&[]).with_clean(&clean).with_triggered([image([0.0, 0.0, 1.0, 0.0])], 2);
    let of = |probe: Probe<'_>| {
        let state = probe.measure(&Tiny::new(&Device::flex())).unwrap();
        (state.untriggered_images, state.untriggered_rate)
    };
    assert_eq!(of(probe.clone().with_victim(3)), (Some(5), Some(0.0)));
    assert_eq!(of(probe.clone().with_victim(2)), (Some(5), Some(1.0)));
    assert_eq!(of(probe.clone().with_any_victim()), (Some(17), Some(0.0)));
    // Nothing is a share of no images.
    assert_eq!(of(probe.clone()), (None, None));
    let without = set(samples(3));
    assert_eq!(of(probe.clone().with_clean(&without).with_victim(3)), (None, None));
    // No image would ever get a label that is none.
    let refused = |probe: Probe<'_>| probe.measure(&Tiny::new(&Device::flex())).unwrap_err().to_string();
    let said = refused(probe.clone().with_victim(7));
    assert!(said.contains("victim") && said.contains("it is 7, the model has 4 classes"), "{said}");
    let said = refused(probe.with_triggered([image([0.0, 0.0, 1.0, 0.0])], 4));
    assert!(said.contains("target") && said.contains("it is 4"), "{said}");
}
