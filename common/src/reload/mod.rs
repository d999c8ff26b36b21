//! Another configuration while the program runs.
//!
//! A thread looks at every file that the configuration came from or names, and at once after SIGHUP. What it finds is loaded and
//! checked as at a start; what is faulty is refused and told, and the program goes on as before. What is sound waits in
//! [`Reloads`] until the pipeline has stopped, and the next one is made of it. Process, admin endpoint and metrics go on.

mod look;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, counter, describe_counter};
use tracing::{error, info};

use crate::config::Written;
use crate::shutdown::Signals;
use crate::telemetry::admin;
pub use look::{Look, Rest};

/// How soon a changed file is noticed; it is tried one look later.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What of a configuration tells that it is another one.
pub trait Configuration: Send + 'static {
    fn written(&self) -> &Written;

    /// The files that it names and whose content counts: secrets, certificates, templates.
    fn files(&self) -> BTreeSet<PathBuf>;

    /// Where the admin endpoint listens.
    fn listen(&self) -> &str;
}

type Load<C> = Box<dyn Fn() -> Result<C, String> + Send>;
type Prove<C> = Box<dyn Fn(&C) -> Result<(), String> + Send>;

/// How a program comes by its configuration.
pub struct Rules<C> {
    /// Its name, with which its metrics begin.
    pub program: &'static str,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Reads and checks everything anew, or tells all faults, one a line.
    pub load: Load<C>,
    /// Finds what else would end a start: clients that cannot be made.
    pub prove: Prove<C>,
    /// Settings that stand until a restart.
    pub fixed: &'static [&'static str],
}

/// A configuration, and what its files held no later than it was loaded: a change since then shows at the next look.
pub struct Loaded<C> {
    pub config: C,
    look: Look,
}

/// Loads a configuration; `file` is the one that it stands in.
///
/// # Errors
/// Those of `load`.
pub fn load<C: Configuration, E>(file: Option<&PathBuf>, load: impl Fn() -> Result<C, E>) -> Result<Loaded<C>, E> {
    // Which files it names is known only afterwards.
    let mut files = load()?.files();
    files.extend(file.cloned());
    let look = Look::at(files);
    Ok(Loaded { config: load()?, look })
}

/// Wakes the thread that looks at the configuration. Never blocks.
#[derive(Clone)]
pub struct Waker(SyncSender<()>);

impl Waker {
    pub fn wake(&self) {
        match self.0.try_send(()) {
            // Full: it is awake. Without a thread there is nobody to wake.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// What signals call: wakes by `wake`, and this thread.
    pub fn after(self, wake: impl Fn() + Send + 'static) -> impl Fn() + Send + 'static {
        move || {
            wake();
            self.wake();
        }
    }
}

/// What [`Waker`] wakes.
pub struct Woken(Receiver<()>);

pub fn waker() -> (Waker, Woken) {
    let (sender, receiver) = sync_channel(1);
    (Waker(sender), Woken(receiver))
}

struct Next<C> {
    config: C,
    /// Names of settings, and files.
    changed: Vec<String>,
}

/// The configuration that waits for the pipeline to stop.
pub struct Reloads<C> {
    next: Arc<Mutex<Option<Next<C>>>>,
    signals: Signals,
    done: Counter,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: Configuration> Reloads<C> {
    /// Starts the thread. `loaded` is what runs; `wake` wakes the pipeline, which is to look at [`Signals::is_restarting`].
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(
        rules: Rules<C>,
        loaded: &Loaded<C>,
        signals: &Signals,
        woken: Woken,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let name = format!("{}_config_reloads_total", rules.program);
        describe_counter!(name.clone(), "Configurations that replaced the running one, or were refused.");
        let [done, refused] = ["done", "refused"].map(|result| counter!(name.clone(), "result" => result));
        let next = Arc::new(Mutex::new(None));
        let keeper = Keeper {
            rules,
            running: loaded.config.written().clone(),
            listen: loaded.config.listen().to_owned(),
            rest: Rest::new(loaded.look.clone()),
            look: loaded.look.clone(),
            next: Arc::clone(&next),
            signals: signals.clone(),
            refused,
            wake: Box::new(wake),
        };
        std::thread::Builder::new().name("config".to_owned()).spawn(move || keeper.run(&woken.0))?;
        Ok(Self { next, signals: signals.clone(), done })
    }

    /// What the next pipeline is to be made of, if something waits. The one before has stopped.
    pub fn take(&self) -> Option<C> {
        let mut next = lock(&self.next);
        self.signals.restart(false);
        let Next { config, changed } = next.take()?;
        self.done.increment(1);
        info!(changed = changed.join(", "), "configuration reloaded");
        Some(config)
    }
}

struct Keeper<C> {
    rules: Rules<C>,
    running: Written,
    listen: String,
    /// What its files held when it was loaded.
    look: Look,
    rest: Rest,
    next: Arc<Mutex<Option<Next<C>>>>,
    signals: Signals,
    refused: Counter,
    wake: Box<dyn Fn() + Send>,
}

impl<C: Configuration> Keeper<C> {
    fn run(mut self, woken: &Receiver<()>) {
        while woken.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {
            let is_asked = self.signals.take_reload();
            let is_due = self.rest.look(self.look.again());
            if is_asked || is_due {
                self.rest.tried();
                match self.attempt() {
                    Ok(true) => {}
                    Ok(false) if is_asked => info!("the configuration is the one that runs, nothing to reload"),
                    Ok(false) => {}
                    Err(faults) => self.refuse(&faults),
                }
            }
        }
    }

    /// Returns whether there is something new, or all faults.
    fn attempt(&mut self) -> Result<bool, String> {
        let file = self.rules.file.as_ref();
        let Loaded { config, look } = load(file, &self.rules.load)?;
        let mut changed = self.running.changes(config.written());
        let fixed: Vec<_> = changed.iter().filter_map(|name| refusal(name, self.rules.fixed)).collect();
        if !fixed.is_empty() {
            return Err(fixed.join("\n"));
        }
        let contents = self.look.changes(&look).filter(|path| Some(*path) != file.map(PathBuf::as_path));
        changed.extend(contents.map(|path| path.display().to_string()));
        if !changed.is_empty() {
            (self.rules.prove)(&config)?;
            admin::prove_listen(&self.listen, config.listen()).map_err(|error| format!("admin.listen: {error}"))?;
            config.listen().clone_into(&mut self.listen);
        }
        (self.look, self.rest) = (look.clone(), Rest::new(look));
        let is_new = !changed.is_empty();
        if is_new {
            self.running = config.written().clone();
            let mut next = lock(&self.next);
            if let Some(before) = next.take() {
                changed.splice(
                    0..0,
                    before.changed.into_iter().filter(|name| !changed.contains(name)).collect::<Vec<_>>(),
                );
            }
            *next = Some(Next { config, changed });
            self.signals.restart(true);
            drop(next);
            (self.wake)();
        }
        Ok(is_new)
    }

    fn refuse(&self, faults: &str) {
        self.refused.increment(1);
        faults.lines().for_each(|fault| error!(fault, "fault in the configuration"));
        error!(faults = faults.lines().count(), "reload refused: the configuration before goes on");
    }
}

/// Why a setting cannot change now, if it is one of `fixed` or below one.
fn refusal(name: &str, fixed: &[&str]) -> Option<String> {
    let is_below =
        |above: &&&str| name.strip_prefix(**above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let above = fixed.iter().find(is_below)?;
    Some(format!("{name}: `{above}` stands until a restart; restart the program, or take the change back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_stand_until_a_restart_are_named() {
        let fixed = &["data_dir", "host.id"];
        assert!(refusal("data_dir", fixed).unwrap().starts_with("data_dir: `data_dir` stands until a restart"));
        assert!(refusal("host.id", fixed).is_some());
        for name in ["data_dir2", "host.name", "host", "inputs[0].paths"] {
            assert_eq!(refusal(name, fixed), None, "{name}");
        }
    }
}
