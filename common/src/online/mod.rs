//! `check --online`: what of the servers breaks the promises, as findings. `topics` and `clocks` judge and are pure; `ask`
//! asks Kafka.

pub mod ask;
pub mod clocks;
pub mod topics;

use std::fmt;

use crate::exit::Exit;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A promise does not hold.
    Breach,
    /// It holds, but for less long, or it could not be told.
    Warning,
}

/// One thing that is not as it should be: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// ``topic `logs` ``
    pub place: String,
    pub what: String,
    pub stake: String,
    pub remedy: String,
}

impl Finding {
    pub fn breach(
        place: impl Into<String>,
        what: impl Into<String>,
        stake: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (place, what, stake, remedy) = (place.into(), what.into(), stake.into(), remedy.into());
        Self { severity: Severity::Breach, place, what, stake, remedy }
    }

    pub fn warning(
        place: impl Into<String>,
        what: impl Into<String>,
        stake: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::breach(place, what, stake, remedy) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, place, what, stake, remedy } = self;
        let word = if *severity == Severity::Breach { "breach" } else { "warning" };
        write!(f, "{word}: {place}: {what}: {stake}; {remedy}")
    }
}

/// Prints what each server told, breaches first, and how the command ends.
pub fn tell<const N: usize>(asked: [anyhow::Result<Vec<Finding>>; N]) -> Exit {
    let (mut findings, mut is_down) = (Vec::new(), false);
    for answer in asked {
        match answer {
            Ok(found) => findings.extend(found),
            Err(error) => {
                eprintln!("{error:#}");
                is_down = true;
            }
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    findings.iter().for_each(|finding| println!("{finding}"));
    let num_breaches = findings.iter().filter(|finding| finding.severity == Severity::Breach).count();
    println!("online: {num_breaches} breaches, {} warnings", findings.len() - num_breaches);
    match num_breaches {
        _ if is_down => Exit::Unavailable,
        0 => Exit::Clean,
        _ => Exit::Config,
    }
}
