//! Writes made-up reports into a folder, to look at the pages while changing them:
//! `cargo run --release -p ggufsmith-verify --example report_samples -- FOLDER`.

#[path = "../tests/samples/mod.rs"]
mod samples;

use ggufsmith_verify::report::{Report, html, markdown, terminal};
use samples::{SAMPLES, Sample, full, hostile, report, without_forward};
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "target/report-samples".into()));
    std::fs::create_dir_all(&folder)?;
    let mut failed = report(SAMPLES[11]);
    failed.gate.max_kld = Some(0.5);
    failed.gate.failures = vec!["mean KL divergence is 0.7400 nats, the limit is 0.5".to_owned()];
    let mut family: Vec<Report> = SAMPLES.iter().map(|sample| report(*sample)).collect();
    family[11] = failed;
    let pages = [
        ("one", vec![full(SAMPLES[8])]),
        ("three", vec![report(SAMPLES[1]), report(SAMPLES[6]), report(SAMPLES[8])]),
        ("family", family),
        ("lossless", vec![report(SAMPLES[0])]),
        ("partial", vec![without_forward(SAMPLES[1])]),
        ("hostile", vec![report(SAMPLES[1]), hostile(SAMPLES[8])]),
        ("deep", vec![report(Sample { layers: 126, ..SAMPLES[8] }), report(Sample { layers: 1, ..SAMPLES[1] })]),
        ("nothing", vec![]),
    ];
    for (name, reports) in pages {
        std::fs::write(folder.join(format!("{name}.html")), html(&reports))?;
        std::fs::write(folder.join(format!("{name}.md")), markdown(&reports))?;
        std::fs::write(folder.join(format!("{name}.txt")), terminal(&reports))?;
    }
    Ok(())
}
