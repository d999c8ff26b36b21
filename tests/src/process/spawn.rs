//! Starting children that die with us.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc;

use rustix::process::{Pid, Signal};

/// Has the child killed when this process ends, however it ends. To be spawned with [`spawn`].
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let set = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call above.
        let now = rustix::process::getppid().map(Pid::as_raw_nonzero);
        if now.map(|pid| pid.get().cast_unsigned()) != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are two system
    // calls and the making of an error from a number, without memory allocation.
    unsafe {
        command.pre_exec(set);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Spawns on a thread that lives as long as this process: the death signal is tied to the thread
/// that forked, and a test's own thread ends with the test.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for job in jobs {
                job();
            }
        });
        sender
    });
    let (reply, child) = mpsc::channel();
    let job: Job = Box::new(move || {
        // The asker waits below, so it is there.
        let _ = reply.send(command.spawn());
    });
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send(job).map_err(|error| gone(error.to_string()))?;
    child.recv().map_err(|error| gone(error.to_string()))?
}
