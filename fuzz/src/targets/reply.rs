//! The reply to a bulk request of three documents.

use std::time::Duration;

use millrace_common::json::Parser;
use millrace_indexer::bulk::batch::{Batch, Builder, Keep, Limits, Owner, Settles};
use millrace_indexer::bulk::response;

const NUM_ITEMS: usize = 3;

pub fn run(data: &[u8]) {
    let batch = batch();
    let Ok(reply) = response::read(data, &batch, &mut Parser::default()) else { return };
    let failed: Vec<usize> = reply.failures.iter().map(|failure| failure.item).collect();
    let mut told: Vec<usize> = failed.iter().chain(&reply.duplicates).copied().collect();
    assert_eq!(reply.num_created as usize + told.len(), NUM_ITEMS, "an item is without an outcome, or has two");
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), failed.len() + reply.duplicates.len(), "an item has two outcomes");
    assert!(told.iter().all(|item| *item < NUM_ITEMS));
}

fn batch() -> Batch {
    let mut builder = Builder::new(Limits { max_bytes: 1 << 20, max_documents: 100, max_delay: Duration::ZERO });
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    let now = std::time::Instant::now();
    for number in 0..NUM_ITEMS {
        let draft = builder.begin("logs", Some(format!("id{number}").as_bytes()));
        builder.body().extend_from_slice(b"{}");
        let settles = Settles::new(Owner { slot: 0, epoch: 0 }, number as u64, 0, 0);
        builder.finish(draft, settles, Keep::Nothing, now);
    }
    builder.cut().expect("it has documents")
}
