//! Where files stand, as the running process tells it, else as the checkpoint on disk.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Place;
use crate::checkpoint::row::Row;
use crate::checkpoint::store;

/// One answer, in the form of `/status`.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub status: Value,
    /// Where it comes from.
    pub origin: String,
}

impl Snapshot {
    pub(super) fn take(place: &Place) -> Result<Self> {
        let asked = ask(&place.listen);
        if let Ok(status) = &asked
            && is_of(status, place.data_dir.as_deref())
        {
            let origin = format!("running, process {}", status["pid"]);
            return Ok(Self { status: status.clone(), origin });
        }
        let Some(dir) = &place.data_dir else {
            let why = asked.err().map_or_else(String::new, |cause| format!(": {cause:#}"));
            bail!("no shipper answers at {}{why}; name its data folder with --data-dir or --config", place.listen);
        };
        let rows = store::read_checkpoint(dir)?;
        let owner = store::owner(dir)?;
        let origin = match owner {
            Some(pid) => {
                let at = &place.listen;
                format!("from the checkpoint: process {pid} uses this folder, but does not answer at {at}")
            }
            None => "from the checkpoint: no shipper runs on this folder".to_owned(),
        };
        Ok(Self { status: of_rows(&rows, dir), origin })
    }

    pub(super) fn sources(&self) -> &[Value] {
        self.status["sources"].as_array().map_or(&[], Vec::as_slice)
    }

    pub(super) fn to_json(&self) -> String {
        let mut status = self.status.clone();
        status["origin"] = self.origin.clone().into();
        format!("{status:#}")
    }
}

/// Whether the process that answered is the one of this folder.
fn is_of(status: &Value, dir: Option<&Path>) -> bool {
    let (Some(dir), Some(theirs)) = (dir, status["data_dir"].as_str()) else { return dir.is_none() };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(dir) == real(Path::new(theirs))
}

fn of_rows(rows: &[Row], dir: &Path) -> Value {
    let sources: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "source": row.source, "input": row.input, "path": row.current_path, "size": row.size,
                "acknowledged": row.acknowledged, "behind": row.size.saturating_sub(row.acknowledged),
                "generation": row.generation, "device": row.identity.device, "inode": row.identity.inode,
                "birth_time_ns": row.identity.birth_time_ns, "state": "stopped",
            })
        })
        .collect();
    json!({ "data_dir": dir, "sources": sources })
}

/// Asks a running shipper for its status.
fn ask(listen: &str) -> Result<Value> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    // Who listens on every address listens on this one.
    let listen = listen.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    let address = listen.to_socket_addrs()?.next().context("no such address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /status HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").context("what listens there is no shipper")?;
    let (head, body) = (&reply[..end], &reply[end + 4..]);
    if !head.starts_with(b"HTTP/1.1 200") {
        bail!("what listens there is no shipper");
    }
    serde_json::from_slice(body).context("what listens there is no shipper")
}
