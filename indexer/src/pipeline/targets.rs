//! The indices documents go to, and their plans.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bulk::service::PlanRequest;
use crate::bulk::unanswered::Evidence;
use crate::map::{Plan, RuleOptions, State};
use crate::templates::{Lookup, LookupError};

/// Plans are read again this often while in use.
const REFRESH: Duration = Duration::from_secs(60);
/// Plans that were not used for this long are let go.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// A failed look-up is repeated after this.
const RETRY: Duration = Duration::from_secs(2);

/// An index whose documents are pushed back for so long is told, and one whose plan nobody asked for is not.
const PATIENCE: Duration = Duration::from_secs(15);

/// One index under one rule.
pub struct Target {
    pub name: Arc<str>,
    rule: Arc<RuleOptions>,
    plan: Option<(Plan, State)>,
    /// Known to exist: it has a live mapping or took a document.
    pub exists: bool,
    /// First refusal because of a block, until something is indexed again.
    blocked: Option<Ailment>,
    /// First document that was pushed back, until something is indexed again.
    pushed_back: Option<Ailment>,
    /// Why its documents are refused for reasons that are not theirs.
    held: Option<String>,
    /// Why it has no plan.
    no_plan: Option<String>,
    /// Number of the last request to set out that brought it a document.
    took: u64,
    read: Option<Instant>,
    used: Instant,
    /// When the look-up on its way was asked for.
    asked: Option<Instant>,
    /// When the one behind the plan was asked for.
    planned: Option<Instant>,
    not_before: Option<Instant>,
}

struct Ailment {
    since: Instant,
    words: String,
}

#[derive(Default)]
pub struct Targets {
    all: Vec<Target>,
}

impl Targets {
    /// Adds an index. The number names it from now on.
    pub fn add(&mut self, name: Arc<str>, rule: Arc<RuleOptions>, now: Instant) -> u32 {
        self.all.push(Target {
            name,
            rule,
            plan: None,
            exists: false,
            blocked: None,
            pushed_back: None,
            held: None,
            no_plan: None,
            took: 0,
            read: None,
            used: now,
            asked: None,
            planned: None,
            not_before: None,
        });
        self.all.len() as u32 - 1
    }

    pub fn get(&self, target: u32) -> &Target {
        &self.all[target as usize]
    }

    pub fn get_mut(&mut self, target: u32) -> &mut Target {
        &mut self.all[target as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.all.iter()
    }

    /// The look-up to make for a target now, if one is wanted and allowed.
    pub fn request(&mut self, target: u32, now: Instant) -> Option<PlanRequest> {
        let entry = self.get_mut(target);
        if entry.asked.is_some() || entry.not_before.is_some_and(|at| now < at) {
            return None;
        }
        entry.asked = Some(now);
        Some(PlanRequest { target, index: Arc::clone(&entry.name), rule: Arc::clone(&entry.rule) })
    }

    /// Plans in use that are due to be read again; lets go of those that are not in use.
    pub fn refresh(&mut self, now: Instant) -> Vec<PlanRequest> {
        let mut due = Vec::new();
        for (number, target) in self.all.iter_mut().enumerate() {
            let Some(read) = target.read else { continue };
            if now.duration_since(target.used) >= FORGET {
                (target.plan, target.read, target.exists) = (None, None, false);
            } else if now.duration_since(read) >= REFRESH && now.duration_since(target.used) < REFRESH {
                due.push(number as u32);
            }
        }
        due.into_iter().filter_map(|target| self.request(target, now)).collect()
    }

    /// What requests that set out after `request` tell of its indices.
    pub fn evidence(&self, request: u64, indices: impl IntoIterator<Item = u32>) -> Evidence {
        let took = |target: &Target| target.took > request;
        match indices.into_iter().any(|target| took(self.get(target))) {
            true => Evidence::SameIndex,
            false if self.all.iter().any(took) => Evidence::OtherIndex,
            false => Evidence::None,
        }
    }

    /// Takes the outcome of a look-up.
    pub fn answer(&mut self, target: u32, result: Result<Lookup, LookupError>, now: Instant) {
        let target = self.get_mut(target);
        let asked = target.asked.take();
        match result {
            Ok(Lookup { plan, exists }) => {
                let state = target.plan.take().map(|(_, state)| state.carried_to(&plan)).unwrap_or_default();
                target.plan = Some((plan, state));
                target.exists |= exists;
                (target.read, target.planned) = (Some(now), asked);
                // A mapping error makes it be read again, but not for each of many.
                target.not_before = Some(now + Duration::from_secs(1));
                target.no_plan = None;
                if exists {
                    target.release();
                }
            }
            Err(error) => {
                target.not_before = Some(now + RETRY);
                let words = error.to_string();
                // An older plan is still good enough.
                if target.plan.is_none() && target.no_plan.as_ref() != Some(&words) {
                    tracing::warn!(index = %target.name, reason = words, "no plan for an index: its documents are held");
                    target.no_plan = Some(words);
                }
            }
        }
    }
}

impl Target {
    /// The name and the plan, if it is there. Marks the target as used.
    pub fn plan(&mut self, now: Instant) -> Option<(&str, &Plan, &mut State)> {
        self.used = now;
        self.plan.as_mut().map(|(plan, state)| (&*self.name, &*plan, state))
    }

    /// Whether the plan is from a look-up made since then.
    pub fn is_planned_since(&self, then: Instant) -> bool {
        self.plan.is_some() && self.planned.is_some_and(|planned| planned >= then)
    }

    /// Share of the field budget that is used up, 1.0 for all of it; `None` without a plan or a budget.
    pub fn budget_used(&self) -> Option<f64> {
        let (used, limit) = self.plan.as_ref().map(|(plan, state)| plan.budget(state))?;
        (limit > 0 && limit < u64::MAX).then(|| used as f64 / limit as f64)
    }

    /// The request of that number brought a document, which was indexed: whatever was wrong is over.
    pub fn took_document(&mut self, request: u64) {
        self.exists = true;
        self.took = self.took.max(request);
        (self.blocked, self.pushed_back) = (None, None);
        self.release();
    }

    fn release(&mut self) {
        if self.held.take().is_some() {
            tracing::info!(index = %self.name, "index takes documents again");
        }
    }

    /// Why its documents do not flow although Elasticsearch answers. They wait `index_wait` for a block to end.
    pub fn trouble(&self, now: Instant, index_wait: Duration) -> Option<&str> {
        let age = |ailment: &&Ailment| now.duration_since(ailment.since);
        let blocked = self.blocked.as_ref().filter(|ailment| age(ailment) < index_wait);
        let pushed_back = self.pushed_back.as_ref().filter(|ailment| age(ailment) >= PATIENCE);
        let ailment = blocked.or(pushed_back).map(|ailment| ailment.words.as_str());
        // A record that waits for its plan asks for it each turn; where none does, none waits.
        let no_plan = self.no_plan.as_deref().filter(|_| now.duration_since(self.used) < PATIENCE);
        no_plan.or(self.held.as_deref()).or(ailment)
    }

    /// A document was refused because of a block. Returns for how long there has been one.
    pub fn block(&mut self, words: String, now: Instant) -> Duration {
        let name = &self.name;
        let ailment = self.blocked.get_or_insert_with(|| {
            tracing::warn!(index = %name, reason = words, "index is blocked: its documents wait");
            Ailment { since: now, words }
        });
        now.duration_since(ailment.since)
    }

    /// A document was pushed back.
    pub fn push_back(&mut self, words: impl FnOnce() -> String, now: Instant) {
        self.pushed_back.get_or_insert_with(|| Ailment { since: now, words: words() });
    }

    /// Documents are held for a reason that is not theirs.
    pub fn hold(&mut self, reason: String) {
        if self.held.is_none() {
            tracing::warn!(index = %self.name, reason, "documents of an index are held");
            self.held = Some(reason);
        }
    }
}
