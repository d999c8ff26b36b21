//! Several topics, each with a rule and an index of its own, through one indexer to the scripted server.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::indexer_rig::{IndexerRig, LIMIT, number};
use crate::{http, wait};

/// The rig, with a topic for each lane. Its index is called as the lane.
pub struct Lanes {
    pub rig: IndexerRig,
}

impl Lanes {
    /// Topics of one partition and an indexer that is not started. Each rule has a template file of the lane's name.
    /// `settings` is YAML for the top level, `bulk` for its section.
    ///
    /// # Errors
    ///
    /// If something cannot be made.
    pub fn new(name: &str, lanes: &[&str], bulk: &str, settings: &str) -> Result<Self> {
        Self::under(lanes, name, lanes, bulk, settings)
    }

    /// As [`Lanes::new`], but the rule of the first lane is that of all topics.
    ///
    /// # Errors
    ///
    /// If something cannot be made.
    pub fn of_one_rule(name: &str, lanes: &[&str]) -> Result<Self> {
        Self::under(&lanes[..1], name, lanes, "", "")
    }

    fn under(ruled: &[&str], name: &str, lanes: &[&str], bulk: &str, settings: &str) -> Result<Self> {
        let rig = IndexerRig::with_options(name, 0, bulk, "")?;
        let lanes_of = Self { rig };
        let templates = lanes_of.rig.config().with_file_name("templates");
        std::fs::create_dir(&templates)?;
        let topics: Vec<String> = lanes.iter().map(|lane| lanes_of.topic(lane)).collect();
        let mut rules = String::new();
        for lane in ruled {
            let template = json!({"index_patterns": [lane], "priority": 600, "version": 1, "_meta": {"managed_by": "millrace"},
                "template": {"mappings": {"properties": {"n": {"type": "long"}, "message": {"type": "text"}}}}});
            std::fs::write(templates.join(format!("{lane}.json")), template.to_string())?;
            let of = if ruled.len() < lanes.len() { topics.join(", ") } else { lanes_of.topic(lane) };
            rules += &format!("  - {{ topics: [{of}], index: {lane} }}\n");
        }
        let rig = &lanes_of.rig;
        rig.reconfigure(&format!("topics: [\"{}\"]", rig.name), &format!("topics: {topics:?}"))?;
        let rule = "rules: [ { index: \"{service.name}\", default: { service.name: a } } ]";
        let templates = format!("templates: {{ dir: \"{}\" }}", templates.display());
        rig.reconfigure(rule, &format!("rules:\n{rules}{templates}\n{settings}"))?;
        Ok(lanes_of)
    }

    pub fn topic(&self, lane: &str) -> String {
        format!("{}-{lane}", self.rig.name)
    }

    /// # Errors
    ///
    /// If the broker does not make it.
    pub fn create(&self, lane: &str) -> Result<()> {
        self.rig.kafka.create_topic(&self.topic(lane), 1, &[])
    }

    /// Writes records `{"n":k,"message":…}` to the topic of a lane.
    ///
    /// # Errors
    ///
    /// If the broker does not take them.
    pub fn produce(&self, lane: &str, numbers: Range<usize>, message: &str) -> Result<()> {
        let records: Vec<String> = numbers.map(|n| format!(r#"{{"n":{n},"message":"{message}"}}"#)).collect();
        self.rig.kafka.produce(&self.topic(lane), None, records.iter().map(|value| ("", value.as_str())))
    }

    /// # Errors
    ///
    /// If the broker does not tell.
    pub fn lag(&self, lane: &str) -> Result<i64> {
        self.rig.kafka.lag(&self.rig.name, &self.topic(lane))
    }

    /// # Errors
    ///
    /// If it is not so in time.
    pub fn wait_no_lag(&self, lane: &str) -> Result<()> {
        self.rig.kafka.wait_no_lag(&self.rig.name, &self.topic(lane), LIMIT)
    }

    /// The numbers of the documents in the index of a lane.
    ///
    /// # Errors
    ///
    /// If one has no number, or a number is there twice.
    pub fn documents(&self, lane: &str) -> Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        for ((index, _), document) in self.rig.fake.documents() {
            let is_new = index != lane || numbers.insert(number(&document)?);
            ensure!(is_new, "{document} is in `{lane}` twice");
        }
        Ok(numbers)
    }

    /// How often documents of each index were sent.
    pub fn sent(&self) -> BTreeMap<String, usize> {
        let mut sent = BTreeMap::new();
        for item in self.rig.fake.bulks().into_iter().flat_map(|bulk| bulk.items) {
            *sent.entry(item.index).or_default() += 1;
        }
        sent
    }

    /// What `/status` says.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(&format!("http://{}/status", self.rig.admin))?.body)?)
    }

    /// Waits until `/readyz` names each of these words.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn wait_told(&self, words: &[&str]) -> Result<String> {
        let mut last = String::new();
        let told = wait::until_true("all ailments to be told", Duration::from_secs(30), || {
            last = self.rig.ready().map(|(_, body)| body).unwrap_or_default();
            Ok(words.iter().all(|word| last.contains(word)))
        });
        told.with_context(|| last.clone())?;
        Ok(last)
    }
}
