//! Series whose set changes, such as one per assigned partition, and others that are known only when they are asked for.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::delays::Delays;

/// Series that are told anew at each scrape, so that those of what is gone go away.
#[derive(Debug, Default)]
pub struct Gauges {
    by_name: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    help: String,
    kind: &'static str,
    /// Labels as printed, with their value; a set twice keeps the last.
    series: BTreeMap<String, f64>,
    /// Series of histograms, as printed.
    histograms: String,
}

impl Gauges {
    /// Sets one series of the gauge `name`. Names and label names are trusted, label values are escaped.
    pub fn set(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, help, "gauge").series.insert(print(labels), value);
    }

    /// Sets one series of the counter `name`.
    pub fn count(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, help, "counter").series.insert(print(labels), value);
    }

    /// Adds the histogram with these labels to the family `name`, in seconds.
    pub fn delays(&mut self, name: &str, help: &str, labels: &[(&str, &str)], delays: &Delays) {
        let text = &mut self.family(name, help, "histogram").histograms;
        let mut total = 0;
        // Writing to a String does not fail.
        for (bound, number) in delays.cumulative() {
            let bound = number_text(bound);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            let _ = writeln!(text, "{name}_bucket{} {number}", print(&labels));
            total = number;
        }
        let labels = print(labels);
        // Nor does it here.
        let _ = writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {total}", delays.sum_seconds());
    }

    fn family(&mut self, name: &str, help: &str, kind: &'static str) -> &mut Family {
        let new = || Family { help: help.to_owned(), kind, series: BTreeMap::new(), histograms: String::new() };
        self.by_name.entry(name.to_owned()).or_insert_with(new)
    }

    /// The Prometheus text of what was set.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, Family { help, kind, series, histograms }) in &self.by_name {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{labels} {}", number_text(*value));
            }
            text.push_str(histograms);
        }
        text
    }
}

/// Rust's text of infinity is not that of Prometheus.
fn number_text(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

fn print(labels: &[(&str, &str)]) -> String {
    let mut printed = String::new();
    for (label, text) in labels {
        let separator = if printed.is_empty() { '{' } else { ',' };
        let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        // Writing to a String does not fail.
        let _ = write!(printed, "{separator}{label}=\"{text}\"");
    }
    if !printed.is_empty() {
        printed.push('}');
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_grouped_and_label_values_escaped() {
        let mut gauges = Gauges::default();
        gauges.set("lag", "Records behind.", &[("topic", "b"), ("partition", "0")], 2.0);
        gauges.set("up", "Whether.", &[], 1.0);
        gauges.set("lag", "Records behind.", &[("topic", "a\"\n\\")], 1.5);
        assert_eq!(
            gauges.render(),
            "# HELP lag Records behind.\n# TYPE lag gauge\nlag{topic=\"a\\\"\\n\\\\\"} 1.5\nlag{topic=\"b\",partition=\"0\"} 2\n\
             # HELP up Whether.\n# TYPE up gauge\nup 1\n"
        );
    }

    #[test]
    fn a_histogram_counts_what_took_no_longer_than_each_bound() {
        let mut delays = Delays::default();
        [-7, 5, 6, 100, 86_400_001].into_iter().for_each(|milliseconds| delays.note(milliseconds));
        let mut gauges = Gauges::default();
        gauges.delays("took_seconds", "Took.", &[("to", "x")], &delays);
        let text = gauges.render();
        assert!(text.starts_with("# HELP took_seconds Took.\n# TYPE took_seconds histogram\n"), "{text}");
        for line in [
            "took_seconds_bucket{to=\"x\",le=\"0.005\"} 2",
            "took_seconds_bucket{to=\"x\",le=\"0.01\"} 3",
            "took_seconds_bucket{to=\"x\",le=\"0.05\"} 3",
            "took_seconds_bucket{to=\"x\",le=\"0.1\"} 4",
            "took_seconds_bucket{to=\"x\",le=\"86400\"} 4",
            "took_seconds_bucket{to=\"x\",le=\"+Inf\"} 5",
            "took_seconds_sum{to=\"x\"} 86400.112",
            "took_seconds_count{to=\"x\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
    }
}
