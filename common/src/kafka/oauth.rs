//! OAUTHBEARER: the token of a client, from a file that something else renews.
//!
//! librdkafka asks for a token through an event, which comes only to who polls, and its Rust crate sends no extensions with one.
//! So every client is given its first token when it is made, and later ones are set here as well.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use rdkafka::ClientConfig;
use rdkafka::bindings as librdkafka;
use rdkafka::client::OAuthToken;
use rdkafka::types::{RDKafka, RDKafkaRespErr};
use serde::{Deserialize, Serialize};

use super::token::{Token, TokenError};
use crate::config::{Secret, SecretError};

/// Ours: names the file with the token.
pub(super) const TOKEN_FILE: &str = "sasl.oauthbearer.token_file";
/// Of librdkafka, which reads it only where it asks a provider for tokens.
pub(super) const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
/// Of librdkafka, which hands it to whom it asks for a token: holds a [`Source`].
const CONFIG: &str = "sasl.oauthbearer.config";

/// How long a token counts as fresh, whatever its lifetime: librdkafka asks for the next one after four fifths of it, so that one
/// that replaces a refused or revoked one is found soon. After a failure it asks after ten seconds, too.
const FRESH_MS: i64 = 10_000;

/// Where tokens come from, and what is sent with them.
#[derive(Debug, Serialize, Deserialize)]
struct Source {
    file: PathBuf,
    /// Names and values in turn.
    extensions: Vec<CString>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    File(#[from] SecretError),
    #[error("the token in `{}` {cause}; {}", path.display(), remedy(cause))]
    Token { path: PathBuf, cause: TokenError },
    #[error("the token in `{}` is refused by librdkafka ({code:?})", path.display())]
    Refused { path: PathBuf, code: RDKafkaRespErr },
}

fn remedy(cause: &TokenError) -> &'static str {
    match cause {
        TokenError::Expired(_) => "look at what renews it; the file is read again every ten seconds",
        TokenError::NoJwt | TokenError::NoExpiry => "write a signed JWT into it, and nothing else",
    }
}

/// Names and values of `name=value,name=value`, in turn (RFC 7628, section 3.1).
///
/// # Errors
/// Why they cannot be sent.
pub(super) fn extensions(text: &str) -> Result<Vec<CString>, &'static str> {
    const FORM: &str = "is not `name=value,name=value` with names of letters and printable values";
    let mut words = Vec::new();
    for extension in text.split(',') {
        let (name, value) = extension.split_once('=').ok_or(FORM)?;
        let (name, value) = (name.trim(), value.trim());
        let is_sound = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !is_sound {
            return Err(FORM);
        }
        if name == "auth" {
            return Err("names `auth`, which is the token itself");
        }
        words.extend([CString::new(name).map_err(|_| FORM)?, CString::new(value).map_err(|_| FORM)?]);
    }
    Ok(words)
}

/// Has clients of `config` take their tokens from `file`.
pub(super) fn set(config: &mut ClientConfig, file: &str, extensions: &[CString]) {
    config.set(CONFIG, serde_json::json!({"file": file, "extensions": extensions}).to_string());
}

/// How a client logs in: a part of its context. Does nothing for one that needs no token.
#[derive(Debug, Default)]
pub struct Login(OnceLock<Session>);

#[derive(Debug)]
struct Session {
    client: AtomicPtr<RDKafka>,
    source: Source,
}

impl Login {
    /// Gives a client that was just made its first token.
    ///
    /// # Errors
    /// There is none. A client that is polled asks again, and is told the reason.
    pub(super) fn begin(&self, config: &ClientConfig, client: *mut RDKafka) -> Result<(), Box<dyn Error>> {
        let Some(source) = config.get(CONFIG) else { return Ok(()) };
        let session = Session { client: AtomicPtr::new(client), source: serde_json::from_str(source)? };
        Ok(self.0.get_or_init(|| session).renew()?)
    }

    /// The answer of `ClientContext::generate_oauth_token`, and only to be called as that: by a client, which lives.
    ///
    /// # Errors
    /// Always. An empty one is no failure to librdkafka: the token was set here, with its extensions.
    pub fn renew(&self) -> Result<OAuthToken, Box<dyn Error>> {
        match self.0.get().map(Session::renew) {
            Some(Ok(())) => Err("".into()),
            Some(Err(fault)) => Err(fault.into()),
            None => Err("there is no file with a token".into()),
        }
    }
}

impl Session {
    fn renew(&self) -> Result<(), Fault> {
        let Source { file, extensions } = &self.source;
        #[expect(clippy::disallowed_methods, reason = "asked for by librdkafka, with nobody to hand a time in")]
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let text = Secret::from_file(file).read()?;
        let wrong = |cause| Fault::Token { path: file.clone(), cause };
        let token = Token::parse(&text, now_ms).map_err(wrong)?;
        let c_string = |text: String| CString::new(text).map_err(|_| wrong(TokenError::NoJwt));
        let (text, principal) = (c_string(token.text)?, c_string(token.principal)?);
        let mut extensions: Vec<*const c_char> = extensions.iter().map(|word| word.as_ptr()).collect();
        // What librdkafka has to say may quote the token.
        let mut unread = [0; 512];
        // SAFETY: the client lives: it has just been made, or asks. Everything else outlives the call, which keeps none of it.
        let code = unsafe {
            librdkafka::rd_kafka_oauthbearer_set_token(
                self.client.load(Ordering::Relaxed),
                text.as_ptr(),
                token.expires_ms.min(now_ms + FRESH_MS),
                principal.as_ptr(),
                extensions.as_mut_ptr(),
                extensions.len(),
                unread.as_mut_ptr(),
                unread.len(),
            )
        };
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Fault::Refused { path: file.clone(), code }),
        }
    }
}
