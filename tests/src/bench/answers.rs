//! Between the indexer and a node: notes for each line when the bulk request that it was in is answered.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use memchr::memmem;

use super::delay::now_us;

const CHUNK_BYTES: usize = 64 << 10;
/// What stands before the time of a line, in microseconds since the epoch.
const FIELD: &[u8] = b"\"us\":";

/// Hands everything on. Its threads end with the connections, and with the program.
pub(super) struct Answers {
    pub addr: SocketAddr,
    delays: Arc<Mutex<Vec<Duration>>>,
}

impl Answers {
    pub(super) fn of(node: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port to listen on")?;
        let addr = listener.local_addr()?;
        let delays = Arc::default();
        let shared = Arc::clone(&delays);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A node that is not there closes the connection.
                let _ = serve(client, node, &shared);
            }
        });
        Ok(Self { addr, delays })
    }

    /// From the write of each line to the answer.
    pub(super) fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut lock(&self.delays))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: TcpStream, node: SocketAddr, delays: &Arc<Mutex<Vec<Duration>>>) -> io::Result<()> {
    let server = TcpStream::connect(node)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    // Requests of a connection are answered one after the other, so these are of the one that is answered next.
    let written: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (answered, delays) = (Arc::clone(&written), Arc::clone(delays));
    let (requests, replies) = ((client.try_clone()?, server.try_clone()?), (server, client));
    thread::spawn(move || {
        let mut rest = Vec::new();
        pass(requests, |bytes| {
            rest.extend_from_slice(bytes);
            take_times(&mut rest, &mut lock(&written));
        })
    });
    thread::spawn(move || {
        pass(replies, |_| {
            let now_us = now_us();
            let waited = |us| Duration::from_micros(now_us.saturating_sub(us));
            lock(&delays).extend(lock(&answered).drain(..).filter(|&us| us > 0).map(waited));
        })
    });
    Ok(())
}

fn pass((mut from, mut to): (TcpStream, TcpStream), mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk) {
            Ok(length) if length > 0 => {
                look(&chunk[..length]);
                to.write_all(&chunk[..length])?;
            }
            // However it ended, so does the other side.
            ended => return to.shutdown(Shutdown::Write).and(ended.map(|_| ())),
        }
    }
}

/// Takes the times that stand whole in `text`, and leaves what may be the beginning of one.
fn take_times(text: &mut Vec<u8>, times: &mut Vec<u64>) {
    let mut end = text.len().saturating_sub(FIELD.len() - 1);
    for at in memmem::find_iter(text, FIELD) {
        let digits = &text[at + FIELD.len()..];
        let num_digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if num_digits == digits.len() {
            end = at;
            break;
        }
        let number = std::str::from_utf8(&digits[..num_digits]).ok();
        times.extend(number.and_then(|number| number.parse::<u64>().ok()));
        end = end.max(at + FIELD.len() + num_digits);
    }
    text.drain(..end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_wherever_a_request_is_cut() {
        let text = b"{\"create\":{}}\n{\"us\":17,\"n\":1}\n{\"us\":4,\"n\":2}\n{\"us\":123456}\n";
        for at in 0..text.len() {
            let (mut rest, mut times) = (Vec::new(), Vec::new());
            for part in [&text[..at], &text[at..]] {
                rest.extend_from_slice(part);
                take_times(&mut rest, &mut times);
            }
            assert_eq!(times, [17, 4, 123_456], "cut at {at}");
        }
    }
}
