//! What a subscriber of `tracing` sees of an audit, by level.
//! Alone in its process: `tracing` remembers for all threads whether anybody listens to a span.

#[path = "support/tiny.rs"]
mod tiny;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use tiny::{Tiny, fit, image, quiet, samples, set};

/// Spans by name, with the names of those that they are in, and the levels of events.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(BTreeSet<String>, BTreeSet<Level>)>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target().starts_with("burn_delta_influence") {
            let scope = context.span_scope(id).unwrap().from_root();
            let path: Vec<&str> = scope.map(|span| span.name()).collect();
            self.0.lock().unwrap().0.insert(path.join("/"));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("burn_delta_influence") {
            self.0.lock().unwrap().1.insert(*event.metadata().level());
        }
    }
}

/// Spans and events of an audit without trouble.
fn seen(level: LevelFilter) -> (BTreeSet<String>, BTreeSet<Level>) {
    let model = Tiny::new(&Device::flex());
    let data = set(samples(200));
    let factors = fit(&model, &data);
    let suspect = Suspect::new(image([0.2, 1.0, 0.1, 0.0]), 1);
    let config = AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() };
    let seen = Seen::default();
    tracing::subscriber::with_default(
        tracing_subscriber::registry().with(seen.clone().with_filter(level)),
        || {
            DeltaAudit::new(config).run(&model, &factors, &data, &[suspect]).unwrap();
        },
    );
    let seen = seen.0.lock().unwrap();
    seen.clone()
}

#[test]
fn info_shows_the_long_work_and_debug_its_parts() {
    let (spans, events) = seen(LevelFilter::INFO);
    assert!(spans.contains("audit") && spans.contains("audit/pass"), "{spans:?}");
    assert!(!spans.iter().any(|path| path.contains("judge")), "parts are of level debug: {spans:?}");
    assert!(events.iter().all(|level| *level == Level::INFO), "nothing to warn of: {events:?}");

    let (spans, events) = seen(LevelFilter::DEBUG);
    for path in ["audit/altered_copies", "audit/judge/null_images", "audit/judge/collapse"] {
        assert!(spans.contains(path), "{path} in {spans:?}");
    }
    assert!(events.contains(&Level::DEBUG) && !events.contains(&Level::WARN), "{events:?}");

    let (spans, events) = seen(LevelFilter::WARN);
    assert_eq!((spans.len(), events.len()), (0, 0));
}
