//! The recorder behind the `metrics` macros, and its text for Prometheus.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::build_info::BuildInfo;

/// Upper bounds in seconds, from a fast acknowledgement on a local network to an outage of minutes.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];
/// Upper bounds in bytes, from one small record to the largest bulk request.
const BYTES: [f64; 9] = [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 8_388_608.0, 67_108_864.0];

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the metrics recorder")]
pub struct MetricsError(#[source] BuildError);

/// Reads out what was recorded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MetricsHandle {
    recorder: PrometheusHandle,
    program: &'static str,
    build: BuildInfo,
}

/// Makes the `metrics` macros of this process record, for `program` (`shipper`).
///
/// Histograms named `*_seconds` and `*_bytes` have fixed buckets, others are summaries.
///
/// # Errors
/// A recorder is installed already.
pub fn install(program: &'static str, build: BuildInfo) -> Result<MetricsHandle, MetricsError> {
    let recorder = builder().map_err(MetricsError)?.install_recorder().map_err(MetricsError)?;
    Ok(MetricsHandle { recorder, program, build })
}

/// A recorder that is not this process's own, for tests: record within `metrics::with_local_recorder`.
pub fn detached(program: &'static str, build: BuildInfo) -> Result<(PrometheusRecorder, MetricsHandle), MetricsError> {
    let recorder = builder().map_err(MetricsError)?.build_recorder();
    let handle = recorder.handle();
    Ok((recorder, MetricsHandle { recorder: handle, program, build }))
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)
}

impl MetricsHandle {
    /// All series in the Prometheus text format, `<program>_build_info{version,commit}` and those of the process among them.
    pub fn render(&self) -> String {
        let mut text = self.recorder.render();
        let mut gauges = super::Gauges::default();
        let name = format!("{}_build_info", self.program);
        let labels = [("version", self.build.version), ("commit", self.build.commit)];
        gauges.set(&name, "The version that runs; always 1.", &labels, 1.0);
        super::process::add(&mut gauges);
        text.push_str(&gauges.render());
        text
    }

    /// Folds what histograms have gathered; to be called every few seconds, or they grow until the next scrape.
    pub fn run_upkeep(&self) {
        self.recorder.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_values_come_out_with_buckets_and_version() {
        let (recorder, handle) = detached("shipper", BuildInfo::new("1.2.3", Some("0a1b2c3"))).unwrap();
        ::metrics::with_local_recorder(&recorder, || {
            ::metrics::counter!("shipper_read_bytes_total").increment(7);
            ::metrics::histogram!("shipper_ack_latency_seconds").record(0.003);
        });
        handle.run_upkeep();
        let text = handle.render();
        for line in [
            "shipper_read_bytes_total 7",
            "shipper_ack_latency_seconds_bucket{le=\"0.0025\"} 0",
            "shipper_ack_latency_seconds_bucket{le=\"0.005\"} 1",
            "shipper_build_info{version=\"1.2.3\",commit=\"0a1b2c3\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
    }
}
