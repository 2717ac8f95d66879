//! The gate's TOML file, and what the gate it describes says of audits.
#![no_main]

use std::sync::OnceLock;

use burn_delta_influence::report::{AuditRecord, Check, DataRecord, Gate, Verdict, junit_xml};
use burn_delta_influence_fuzz::{file, names, within, write_seeds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: write_seeds(seeds),
    |data: &[u8]| {
        let path = file("gate.toml", data);
        let gate = match within(64, || Gate::load(&path)) {
            Ok(gate) => gate,
            Err(error) => {
                names(&error, &path);
                // It is printed on one line, whatever the file holds.
                let said = error.to_string();
                assert!(!said.chars().any(|c| c.is_control()), "{said:?}");
                return;
            }
        };
        assert!(gate.validate().is_ok());
        assert!((0.0..=1.0).contains(&gate.min_coverage));
        for record in records() {
            let mut check = Check::new(gate.clone());
            let outcome = check.add("audit.json", record.clone()).outcome();
            let limited = gate.max_flagged.is_some() || gate.max_flagged_share.is_some();
            assert!(record.verdict != Verdict::Poisoned || limited || !outcome.passed());
            assert!(record.verdict != Verdict::Inconclusive || gate.allow_inconclusive || !outcome.passed());
            let _ = (check.audits()[0].line(), junit_xml(&check));
        }
    }
);

fn records() -> &'static [AuditRecord] {
    static RECORDS: OnceLock<Vec<AuditRecord>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let verdicts = [Verdict::Poisoned, Verdict::Inconclusive, Verdict::Clean];
        let data = DataRecord { samples: 100, classes: 10, ..DataRecord::default() };
        verdicts.map(|verdict| AuditRecord { verdict, data: data.clone(), ..AuditRecord::default() }).to_vec()
    })
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let all = "# a gate\nmax_flagged = 3\nmax_flagged_share = 0.01\nallow_inconclusive = true\n\
               min_suspects = 2\nmin_searched = 100\nmin_coverage = 0.5\nrules = [\"delta\", 'spectral']\n";
    let others = "min_coverage = 1e-2\nmax_flagged = 0x1F\nrules = [\n  \"\"\"a\nb\"\"\",\n]\n";
    let refused =
        "[gate]\nmax_flaged = 1979-05-27T07:32:00Z\n\"min_suspects\" = { a = inf, \"\\u00e9\" = nan }\n";
    let range = "min_coverage = 2.5\nmax_flagged_share = -nan\n";
    [("all", all), ("others", others), ("refused", refused), ("range", range)]
        .map(|(name, text)| (name, text.as_bytes().to_vec()))
        .to_vec()
}
