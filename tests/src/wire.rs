//! As much HTTP as a scripted server and a stormy proxy need: bodies with a length, connections that stay.

use std::borrow::Cow;
use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

/// A request as it was received.
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request of a connection; `None` at its end.
    ///
    /// # Errors
    ///
    /// If it ends in the middle of one.
    pub fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        Self::read_into(reader, Vec::new())
    }

    /// As [`Request::read`], with the memory of an earlier body.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_into(reader: &mut impl BufRead, mut body: Vec<u8>) -> Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        body.clear();
        let mut request = Self { method, path, headers, body };
        let length = request.header("content-length").parse().unwrap_or(0);
        request.body.reserve(length);
        reader.take(length as u64).read_to_end(&mut request.body)?;
        ensure!(request.body.len() == length, "the body ends after {} bytes of {length}", request.body.len());
        Ok(Some(request))
    }

    /// The value of a header; empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    pub fn is_packed(&self) -> bool {
        self.header("content-encoding") == "gzip"
    }

    /// # Errors
    ///
    /// If the body is said to be packed and is not.
    pub fn unpacked(&self) -> Result<Cow<'_, [u8]>> {
        if !self.is_packed() {
            return Ok(Cow::Borrowed(&self.body));
        }
        let mut body = Vec::new();
        GzDecoder::new(self.body.as_slice()).read_to_end(&mut body).context("the body is no gzip")?;
        Ok(Cow::Owned(body))
    }

    /// Writes the reply to this request.
    ///
    /// # Errors
    ///
    /// If the connection is gone.
    pub fn answer(&self, writer: &mut impl Write, status: u16, headers: &[(&str, String)], body: &str) -> Result<()> {
        let mut head =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\ncontent-type: application/json\r\n", body.len());
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str("\r\n");
        if self.method != "HEAD" {
            head.push_str(body);
        }
        Ok(writer.write_all(head.as_bytes())?)
    }
}
