//! The audit, by each rule that is asked for.

use burn::data::dataset::Dataset;
use burn_delta_influence::audit::{Audit, DeltaAudit, HarmlessMistakes};
use burn_delta_influence::capture::PassConfig;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;

use crate::arguments::Arguments;
use crate::data::Data;
use crate::support::{KEPT_EVERY, Outcome, PROGRESS, phase};
use crate::suspects::Asked;

/// Audits with every rule asked for; the first one's audit is written and returned.
pub fn run(
    arguments: &Arguments,
    model: &ResNet9,
    factors: &KroneckerFactors,
    data: &Data,
    asked: &Asked,
) -> Outcome<Audit> {
    let harmless = match asked {
        Asked::Reported(suspects) => phase("harmless mistakes", || {
            Ok(HarmlessMistakes::find(model, &data.test, suspects, &PassConfig::default())?)
        })?,
        // The test images were searched: what they would be compared with are the other suspects.
        Asked::Found(_) => HarmlessMistakes::default(),
    };
    let (mut first, mut kept) = (None, Vec::new());
    for &choice in arguments.rules() {
        let rule = choice.name();
        let mut audit = phase(&format!("audit, rule {rule}"), || {
            let config = arguments.audit_config(choice);
            let place = arguments.out.join(format!("{PROGRESS}-{rule}"));
            let run =
                DeltaAudit::new(config).with_harmless(harmless.clone()).with_kept_progress(place, KEPT_EVERY);
            let audit = match asked {
                Asked::Reported(suspects) => run.run(model, factors, &data.train, suspects)?,
                Asked::Found(found) => run.run_found(model, factors, &data.train, found)?,
            };
            kept.push(run);
            Ok(audit.with_class_names(Cifar10::CLASSES))
        })?;
        if let Some(poisons) = &data.poisons {
            let flagged = audit.flagged();
            let truth = DetectionMetrics::measure(data.train.len(), &flagged, poisons, Some(audit.scores()))?;
            println!(
                "  {} flagged, {} of {} poisons: precision {:.3}, recall {:.3}, F1 {:.3}",
                truth.flagged, truth.true_positives, truth.poisons, truth.precision, truth.recall, truth.f1
            );
            audit = audit.with_truth(truth.into());
        }
        if first.is_none() {
            audit.save(arguments.out.join("audit.json"))?;
            audit.save_html(arguments.out.join("audit.html"), &data.train)?;
            audit.save_contact_sheet(arguments.out.join("flagged.png"), &data.train)?;
            first = Some(audit);
        } else {
            audit.save(arguments.out.join(format!("audit-{}.json", audit.record.rule.name)))?;
        }
    }
    kept.iter().try_for_each(DeltaAudit::forget_progress)?;
    first.ok_or_else(|| "no rule was asked for".into())
}
