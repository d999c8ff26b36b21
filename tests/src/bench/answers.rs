//! Between the indexer and a node: notes for each line when the bulk request that it was in is answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use memchr::memmem;

use super::delay::{Delay, now_us};
use crate::lock;
use crate::proxy::{Observer, Proxy};

/// What stands before the time of a line, in microseconds since the epoch.
const FIELD: &[u8] = b"\"us\":";

pub(super) struct Answers {
    proxy: Proxy,
    delays: Delays,
}

type Delays = Arc<Mutex<Vec<Delay>>>;

impl Answers {
    pub(super) fn of(node: SocketAddr) -> Result<Self> {
        let delays = Delays::default();
        let shared = Arc::clone(&delays);
        let proxy = Proxy::observed(node, move || {
            Box::new(Lines { rest: Vec::new(), written: Vec::new(), delays: Arc::clone(&shared) })
        })?;
        Ok(Self { proxy, delays })
    }

    /// Where the indexer is to connect to.
    pub(super) fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    /// From the write of each line to the answer.
    pub(super) fn take(&self) -> Vec<Delay> {
        std::mem::take(&mut lock(&self.delays))
    }
}

/// The lines of the request on one connection that is not answered yet: requests are answered one after the other.
struct Lines {
    /// What may be the beginning of a line's time.
    rest: Vec<u8>,
    written: Vec<u64>,
    delays: Delays,
}

impl Observer for Lines {
    fn request(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        take_times(&mut self.rest, &mut self.written);
    }

    fn reply(&mut self, _: &[u8]) {
        let now_us = now_us();
        let measured = self.written.drain(..).filter(|&us| us > 0);
        lock(&self.delays).extend(measured.map(|us| Delay::of(us, now_us)));
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
