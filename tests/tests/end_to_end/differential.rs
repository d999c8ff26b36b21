//! Elasticsearch is the judge of the rule plan: for generated mappings and documents, prediction and reality must agree,
//! and what the plan decides to send must be accepted. `heavy/differential` tries more pairs and other servers.
//!
//! `MILLRACE_PAIRS` sets how many documents are tried (default 2,000), `MILLRACE_SEED` where the generator begins.
//! `MILLRACE_ELASTICSEARCH` names another node than the shared one.

use anyhow::Result;
use millrace_tests::elasticsearch::Elasticsearch;

use crate::agreement;

fn url() -> Result<String> {
    match std::env::var("MILLRACE_ELASTICSEARCH") {
        Ok(url) => Ok(url),
        Err(_) => Ok(Elasticsearch::shared()?.url().to_owned()),
    }
}

#[test]
fn prediction_and_elasticsearch_agree() -> Result<()> {
    agreement::predictions(&url()?, agreement::pairs(2_000))
}

#[test]
fn what_the_plan_sends_is_accepted() -> Result<()> {
    agreement::decisions(&url()?, agreement::pairs(2_000) / 2)
}
