//! Gauges whose set of series changes, such as one per assigned partition.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Series that are told anew at each scrape, so that those of what is gone go away.
#[derive(Debug, Default)]
pub struct Gauges {
    by_name: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    help: String,
    /// Labels as printed, with their value; a set twice keeps the last.
    series: BTreeMap<String, f64>,
}

impl Gauges {
    /// Sets one series of the gauge `name`. Names and label names are trusted, label values are escaped.
    pub fn set(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
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
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Family { help: help.to_owned(), series: BTreeMap::new() });
        }
        if let Some(family) = self.by_name.get_mut(name) {
            family.series.insert(printed, value);
        }
    }

    /// The Prometheus text of what was set.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, Family { help, series }) in &self.by_name {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }
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
}
