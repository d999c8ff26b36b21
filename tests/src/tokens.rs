//! Signed tokens of a test's own (JWT, RFC 7519), as a provider gives them out.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

/// Whom tokens are for, and who gives them out.
pub const AUDIENCE: &str = "kafka";
pub const ISSUER: &str = "https://provider.example";
const KEY_ID: &str = "the-key";

/// A provider of tokens: a key.
pub struct Provider {
    key: PKey<Private>,
}

impl Provider {
    /// With a key of its own.
    ///
    /// # Errors
    ///
    /// If there is no key.
    pub fn new() -> Result<Self> {
        Ok(Self { key: PKey::from_rsa(Rsa::generate(2048)?)? })
    }

    /// Its public key as a JSON Web Key Set.
    ///
    /// # Errors
    ///
    /// If the key cannot be read.
    pub fn key_set(&self) -> Result<Value> {
        let rsa = self.key.rsa()?;
        let part = |number: Vec<u8>| URL_SAFE_NO_PAD.encode(number);
        let (n, e) = (part(rsa.n().to_vec()), part(rsa.e().to_vec()));
        Ok(json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": n, "e": e}]}))
    }

    /// A token of `owner` that expires these seconds from now on.
    ///
    /// # Errors
    ///
    /// If it cannot be signed.
    pub fn token(&self, owner: &str, seconds: i64) -> Result<String> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID}));
        let (issued, expires) = (now.min(now + seconds) - 60, now + seconds);
        let claims = json!({"sub": owner, "iss": ISSUER, "aud": [AUDIENCE], "iat": issued, "exp": expires});
        let signed = format!("{head}.{}", part(claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
        let signature = URL_SAFE_NO_PAD.encode(signer.sign_oneshot_to_vec(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }
}

/// Puts another token into a file at once, as an agent does.
///
/// # Errors
///
/// If it cannot be written.
pub fn replace(file: &Path, token: &str) -> Result<()> {
    let aside = file.with_extension("new");
    fs::write(&aside, token)?;
    Ok(fs::rename(aside, file)?)
}
