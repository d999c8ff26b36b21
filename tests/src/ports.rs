//! Free TCP ports on 127.0.0.1.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

// Below the range that Linux takes outgoing connections from (32768 and up): a server that a test
// stops for a while must find its port free again.
const RANGE: Range<u16> = 18_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Returns a port that nothing listens on, different at every call in one process.
///
/// # Errors
///
/// If the whole range is taken.
pub fn free() -> Result<u16> {
    let num_ports = RANGE.end - RANGE.start;
    // Processes that run at the same time start at different places.
    let start = u16::try_from(u64::from(std::process::id()) * 613 % u64::from(num_ports))?;
    for _ in 0..num_ports {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % num_ports;
        let port = RANGE.start + (start + step) % num_ports;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}
