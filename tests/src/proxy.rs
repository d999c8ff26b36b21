//! A TCP proxy that behaves as badly as a network can.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{lock, wait};

const TICK: Duration = Duration::from_millis(10);
const CHUNK_BYTES: usize = 64 * 1024;

/// What the proxy does with connections and bytes, old and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands everything on.
    Pass,
    /// Hands every piece on after this time, each way.
    Delay(Duration),
    /// Accepts connections and bytes, and hands nothing on until the mode changes.
    BlackHole,
    /// Hands requests on, and closes the connection when the reply comes: the outcome of a
    /// request is unknown to the client.
    CutReplies,
    /// Forgets a connection that was idle for this long, as load balancers do: it stays open, and nothing comes through.
    ForgetIdle(Duration),
    /// Closes all connections and listens no longer.
    Refuse,
}

/// Is shown what passes on one connection, before it is handed on.
pub trait Observer: Send {
    fn request(&mut self, bytes: &[u8]);
    fn reply(&mut self, bytes: &[u8]);
}

type NewObserver = dyn Fn() -> Box<dyn Observer> + Send + Sync;

/// Listens on a free port of 127.0.0.1 and connects to a target. Ends when dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    observe: Option<Box<NewObserver>>,
    mode: Mutex<Mode>,
    /// Raised by one to make every pump that was started before end.
    cuts: AtomicU64,
    is_listening: AtomicBool,
    is_over: AtomicBool,
    num_accepted: AtomicU64,
}

impl Proxy {
    /// Starts in [`Mode::Pass`]; the target need not listen yet.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub fn start(target: SocketAddr) -> Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], crate::ports::free()?)), target)
    }

    /// As [`Proxy::start`], with an observer of each connection.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub fn observed(
        target: SocketAddr,
        observe: impl Fn() -> Box<dyn Observer> + Send + Sync + 'static,
    ) -> Result<Self> {
        let addr = SocketAddr::from(([127, 0, 0, 1], crate::ports::free()?));
        Self::listen(addr, target, Some(Box::new(observe)))
    }

    /// As [`Proxy::start`], on an address of the caller's choice.
    ///
    /// # Errors
    ///
    /// If it is taken.
    pub fn start_on(addr: SocketAddr, target: SocketAddr) -> Result<Self> {
        Self::listen(addr, target, None)
    }

    fn listen(addr: SocketAddr, target: SocketAddr, observe: Option<Box<NewObserver>>) -> Result<Self> {
        let listener = listen(addr).with_context(|| format!("cannot listen on {addr}"))?;
        let shared = Arc::new(Shared {
            target,
            observe,
            mode: Mutex::new(Mode::Pass),
            cuts: AtomicU64::new(0),
            is_listening: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            num_accepted: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&accepting, addr, listener));
        Ok(Self { addr, shared })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what happens from now on, on open connections too. After [`Mode::Refuse`], and
    /// after leaving it, returns when the port is closed or open.
    ///
    /// # Errors
    ///
    /// If the port cannot be closed or opened within 10 s.
    pub fn set(&self, mode: Mode) -> Result<()> {
        *self.shared.mode() = mode;
        if mode == Mode::Refuse {
            self.cut();
        }
        let wanted = mode != Mode::Refuse;
        wait::until_true("the proxy's port", Duration::from_secs(10), || {
            Ok(self.shared.is_listening.load(Ordering::SeqCst) == wanted)
        })
    }

    /// Closes all open connections, once; new ones are served as the mode says.
    pub fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// How many connections have been accepted so far.
    pub fn num_accepted(&self) -> u64 {
        self.shared.num_accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut();
    }
}

impl Shared {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        lock(&self.mode)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(shared: &Arc<Shared>, addr: SocketAddr, listener: TcpListener) {
    let mut listener = Some(listener);
    while !shared.is_over() {
        let refuse = *shared.mode() == Mode::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            // Tried again at the next turn; `set` gives up after a while.
            listener = listen(addr).ok();
        }
        shared.is_listening.store(listener.is_some(), Ordering::SeqCst);
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                shared.num_accepted.fetch_add(1, Ordering::SeqCst);
                serve(shared, client);
            }
            _ => std::thread::sleep(TICK),
        }
    }
}

/// Connects to the target and pumps both ways, each on a thread. A target that is not there closes
/// the client's connection.
fn serve(shared: &Arc<Shared>, client: TcpStream) {
    let connection = Arc::new(Connection {
        shared: Arc::clone(shared),
        born: shared.cuts.load(Ordering::SeqCst),
        used: Mutex::new(Some(Instant::now())),
        observer: shared.observe.as_ref().map(|observe| Mutex::new(observe())),
    });
    std::thread::spawn(move || -> io::Result<()> {
        client.set_nonblocking(false)?;
        let server = TcpStream::connect_timeout(&connection.shared.target, Duration::from_secs(5))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
        }
        let replies = (Arc::clone(&connection), server.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || replies.0.pump(true, &replies.1, &replies.2));
        connection.pump(false, &client, &server);
        Ok(())
    });
}

struct Connection {
    shared: Arc<Shared>,
    /// The number of cuts when it was accepted.
    born: u64,
    /// When it was last used, `None` once it is forgotten.
    used: Mutex<Option<Instant>>,
    observer: Option<Mutex<Box<dyn Observer>>>,
}

impl Connection {
    fn is_cut(&self) -> bool {
        self.shared.cuts.load(Ordering::SeqCst) != self.born
    }

    /// Notes a use. `false` if it was idle for too long, now or before.
    fn use_again(&self, mode: Mode) -> bool {
        let mut used = lock(&self.used);
        let Some(last) = *used else { return false };
        let is_forgotten = matches!(mode, Mode::ForgetIdle(after) if last.elapsed() > after);
        *used = (!is_forgotten).then(Instant::now);
        !is_forgotten
    }

    fn pump(&self, is_reply: bool, from: &TcpStream, to: &TcpStream) {
        // An error on either side ends the connection as a whole, which is all a proxy can say.
        let _ = self.pump_until_end(is_reply, from, to);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn pump_until_end(&self, is_reply: bool, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while !self.is_cut() {
            let len = match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            while *self.shared.mode() == Mode::BlackHole && !self.is_cut() {
                std::thread::sleep(TICK);
            }
            let mode = *self.shared.mode();
            if !self.use_again(mode) {
                continue;
            }
            if let Mode::Delay(time) = mode {
                std::thread::sleep(time);
            }
            if self.is_cut() || (is_reply && mode == Mode::CutReplies) {
                return Ok(());
            }
            if let Some(observer) = &self.observer {
                let mut observer = lock(observer);
                if is_reply { observer.reply(&chunk[..len]) } else { observer.request(&chunk[..len]) }
            }
            to.write_all(&chunk[..len])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connects, says something and returns what comes back, or `None` if nothing does.
    fn echo(addr: SocketAddr) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(addr).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        stream.write_all(b"hello").ok()?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).ok()?;
        Some(reply.to_vec())
    }

    fn echo_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One that stays open must not keep the next one waiting.
                std::thread::spawn(move || {
                    // Ends with an error when the proxy cuts, as it should.
                    let _ = io::copy(&mut &stream, &mut &stream);
                });
            }
        });
        addr
    }

    #[test]
    fn each_mode_does_what_it_says() {
        let proxy = Proxy::start(echo_server()).unwrap();
        let says = |mode| {
            proxy.set(mode).unwrap();
            echo(proxy.addr())
        };
        let hello = Some(b"hello".to_vec());
        assert_eq!(says(Mode::Pass), hello);
        assert_eq!(says(Mode::Refuse), None);
        assert!(TcpStream::connect(proxy.addr()).is_err());
        assert_eq!(says(Mode::Delay(Duration::from_millis(20))), hello);
        assert_eq!(says(Mode::BlackHole), None);
        assert_eq!(says(Mode::CutReplies), None);
        assert_eq!(says(Mode::Pass), hello);
    }

    #[test]
    fn an_observer_sees_both_ways_of_its_connection() {
        struct Heard(Arc<Mutex<Vec<String>>>, String);
        impl Observer for Heard {
            fn request(&mut self, bytes: &[u8]) {
                self.1 += &String::from_utf8_lossy(bytes);
            }
            fn reply(&mut self, bytes: &[u8]) {
                lock(&self.0).push(format!("{} answered with {}", self.1, String::from_utf8_lossy(bytes)));
            }
        }
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let each = Arc::clone(&heard);
        let proxy = Proxy::observed(echo_server(), move || Box::new(Heard(Arc::clone(&each), String::new()))).unwrap();
        for _ in 0..2 {
            echo(proxy.addr()).unwrap();
        }
        assert_eq!(*lock(&heard), ["hello answered with hello"; 2]);
    }

    #[test]
    fn an_idle_connection_is_forgotten_and_a_new_one_is_served() {
        let proxy = Proxy::start(echo_server()).unwrap();
        proxy.set(Mode::ForgetIdle(Duration::from_millis(300))).unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut says = |pause| {
            std::thread::sleep(pause);
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut [0; 5]).is_ok()
        };
        assert!(says(Duration::ZERO) && says(Duration::from_millis(50)));
        assert!(!says(Duration::from_millis(500)) && !says(Duration::ZERO), "forgotten for good");
        assert!(echo(proxy.addr()).is_some());
    }
}
