//! What a request without an answer in time means. Pure.
//!
//! Some documents are never answered: servers are known that spin on them. An outage looks the same from here, so only requests
//! that set out later and were answered tell the two apart. Without such a one nothing is held against a batch.

/// What requests tell that set out later than one that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// None of them was answered.
    None,
    /// Documents of other indices were taken.
    OtherIndex,
    /// Documents of an index of the batch were taken.
    SameIndex,
}

/// What is held against a batch: the weights of its requests without an answer in a row.
pub type Weight = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    SendAgain(Weight),
    /// Its halves are sent apart.
    Split,
    Bury,
}

/// A lone document is given up after 5 requests that were not answered while its index took others, or after 15 while only other
/// indices did: the shard or node may be ill, so that is given longer. At the default timeout that is longer than the 4 minutes
/// after which a cluster has put out a node whose disk hangs, and every request less is one thread less that spins.
const MOST_ALONE: Weight = 15;
const SAME_INDEX: Weight = 3;
/// A batch is split after 2, whatever index took others, since that costs nothing but requests.
const MOST_TOGETHER: Weight = 2;

/// Decides about a batch of `num_items` that was not answered, with `before` held against it.
pub fn judge(before: Option<Weight>, num_items: usize, evidence: Evidence) -> Verdict {
    let is_alone = num_items == 1;
    let weight = match evidence {
        Evidence::None => return Verdict::SendAgain(0),
        Evidence::SameIndex if is_alone => SAME_INDEX,
        Evidence::SameIndex | Evidence::OtherIndex => 1,
    };
    let weight = before.unwrap_or(0).saturating_add(weight);
    match is_alone {
        true if weight >= MOST_ALONE => Verdict::Bury,
        false if weight >= MOST_TOGETHER => Verdict::Split,
        _ => Verdict::SendAgain(weight),
    }
}

/// What is held against a half of a batch that was split: it is halved at once if it is not answered either. A document that
/// is alone now starts anew.
pub fn inherited(num_items: usize) -> Weight {
    if num_items == 1 { 0 } else { MOST_TOGETHER - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts over a batch that is never answered, until it is split or buried.
    fn verdicts(num_items: usize, evidence: impl IntoIterator<Item = Evidence>) -> Vec<Verdict> {
        let mut held = None;
        let mut verdicts = Vec::new();
        for evidence in evidence {
            let verdict = judge(held, num_items, evidence);
            verdicts.push(verdict);
            let Verdict::SendAgain(weight) = verdict else { break };
            held = Some(weight);
        }
        verdicts
    }

    #[test]
    fn an_outage_splits_and_buries_nothing() {
        for num_items in [1, 2, 5_000] {
            let outage = verdicts(num_items, [Evidence::None; 1_000]);
            assert_eq!(outage, [Verdict::SendAgain(0); 1_000]);
        }
    }

    #[test]
    fn a_batch_is_split_the_second_time_that_others_were_answered_and_its_halves_at_once() {
        use Evidence::{None, OtherIndex, SameIndex};
        assert_eq!(verdicts(100, [SameIndex, OtherIndex]), [Verdict::SendAgain(1), Verdict::Split]);
        assert_eq!(verdicts(100, [OtherIndex, None, SameIndex, None]).last(), Some(&Verdict::SendAgain(0)));
        assert_eq!(judge(Some(inherited(50)), 50, OtherIndex), Verdict::Split);
        assert_eq!(judge(Some(inherited(50)), 50, None), Verdict::SendAgain(0));
    }

    #[test]
    fn a_document_alone_is_buried_after_five_requests_or_fifteen_and_not_over_an_outage() {
        let num_until = |evidence| {
            let verdicts = verdicts(1, std::iter::repeat_n(evidence, 100));
            assert_eq!(verdicts.last(), Some(&Verdict::Bury));
            verdicts.len()
        };
        assert_eq!(num_until(Evidence::SameIndex), 5);
        assert_eq!(num_until(Evidence::OtherIndex), 15);
        let row = [vec![Evidence::SameIndex; 4], vec![Evidence::None], vec![Evidence::SameIndex; 4]].concat();
        assert!(!verdicts(1, row).contains(&Verdict::Bury));
        let after_a_split = verdicts(1, [Evidence::SameIndex; 4]);
        assert_eq!(judge(Some(inherited(1)), 1, Evidence::SameIndex), after_a_split[0]);
    }
}
