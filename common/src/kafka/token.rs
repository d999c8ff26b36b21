//! A token as its file holds it: a JSON Web Token, of which lifetime and owner are read. Proving it is the broker's. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// A token that can be sent. Not printable: who has it is let in.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub text: String,
    /// Whom it speaks for, for messages; the broker looks for itself.
    pub principal: String,
    /// When it expires, in milliseconds since the epoch.
    pub expires_ms: i64,
}

/// Why a token cannot be sent. Tells nothing of its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("is no JWT (three parts of base64url with dots between, claims in the second)")]
    NoJwt,
    #[error("has no claim `exp`, so nobody knows how long it lasts")]
    NoExpiry,
    #[error("expired at {}", time(*.0))]
    Expired(i64),
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

#[derive(Deserialize)]
struct Claims {
    /// In seconds, which may have a fraction (RFC 7519).
    exp: Option<f64>,
    sub: Option<String>,
}

impl Token {
    /// Reads `text`, with space around it or not.
    ///
    /// # Errors
    /// It is no JWT, or has no time left at `now_ms`.
    pub fn parse(text: &str, now_ms: i64) -> Result<Self, TokenError> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        // librdkafka puts a token with other characters into its message about them.
        let is_sound = |part: &&str| !part.is_empty() && URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).is_ok();
        let [_, claims, _] = parts[..] else { return Err(TokenError::NoJwt) };
        if !parts.iter().all(is_sound) {
            return Err(TokenError::NoJwt);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| TokenError::NoJwt)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::NoJwt)?;
        let expires_ms = (claims.exp.ok_or(TokenError::NoExpiry)? * 1000.0) as i64;
        if expires_ms <= now_ms {
            return Err(TokenError::Expired(expires_ms));
        }
        let principal = claims.sub.filter(|sub| !sub.contains('\0')).unwrap_or_default();
        Ok(Self { text: text.to_owned(), principal, expires_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(claims), part("signature"))
    }

    #[test]
    fn lifetime_and_owner_are_those_of_the_claims() {
        let text = jwt(r#"{"sub":"app","exp":1700000000.5,"iat":1,"aud":["kafka"]}"#);
        let token = Token::parse(&format!("\n {text}\r\n"), 1_700_000_000_499).unwrap();
        assert_eq!((token.principal.as_str(), token.expires_ms), ("app", 1_700_000_000_500));
        assert!(token.text == text);
        let token = Token::parse(&jwt(r#"{"exp":1700000000}"#), 0).unwrap();
        assert_eq!(token.principal, "", "a token without an owner is the broker's to refuse");
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_told_without_its_text() {
        let faults = [
            (jwt(r#"{"sub":"app","exp":1700000000}"#), TokenError::Expired(1_700_000_000_000)),
            (jwt(r#"{"sub":"app"}"#), TokenError::NoExpiry),
            (jwt(r#"{"exp":"hunter2"}"#), TokenError::NoJwt),
            (jwt("hunter2"), TokenError::NoJwt),
            (jwt("{}").replace('.', ".hunter2."), TokenError::NoJwt),
            (jwt(r#"{"exp":9e9}"#) + "\u{1}hunter2", TokenError::NoJwt),
            (jwt(r#"{"exp":9e9}"#).replacen('.', "..", 1), TokenError::NoJwt),
            ("hunter2".to_owned(), TokenError::NoJwt),
        ];
        for (text, expected) in faults {
            let told = Token::parse(&text, 1_700_000_000_000).err().unwrap();
            assert_eq!(told, expected, "{text}");
            assert!(!format!("{told} {told:?}").contains("hunter2"), "{told}");
        }
        assert_eq!(TokenError::Expired(1_700_000_000_000).to_string(), "expired at 2023-11-14T22:13:20Z");
    }
}
