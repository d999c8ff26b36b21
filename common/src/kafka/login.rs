//! Logins that would fail when the client is made, or wait for ever for a token that nobody brings.

use super::{OptionFault, Options};

/// OAUTHBEARER is not among them: librdkafka would need an HTTP client to ask a provider for tokens.
const SUPPORTED: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

const PROTOCOL: &str = "security.protocol";
const MECHANISM: &str = "sasl.mechanism";

/// What is wrong with the way of logging in, if anything is.
pub(super) fn check(options: &Options) -> Option<OptionFault> {
    let protocol = options.get(PROTOCOL)?;
    if !protocol.trim().to_ascii_lowercase().starts_with("sasl") {
        return None;
    }
    let written = ["sasl.mechanisms", MECHANISM].into_iter().find_map(|name| Some((name, options.get(name)?)));
    let Some((name, mechanism)) = written else {
        let remedy = format!("set `{MECHANISM}` to {}", SUPPORTED.join(", "));
        return Some(OptionFault::option(PROTOCOL, "asks for a login without saying which kind", remedy));
    };
    let what = match mechanism {
        supported if SUPPORTED.contains(&supported) => return None,
        "OAUTHBEARER" => "would wait for a token for ever: nothing here asks a provider for one".to_owned(),
        other => format!("`{other}` is not built in"),
    };
    let remedy = format!("write {} over TLS (`sasl_ssl`), or log in with a client certificate", SUPPORTED.join(", "));
    Some(OptionFault::option(name, what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Role, check};

    fn faults(options: &[(&str, &str)]) -> Vec<String> {
        let options = Options::from_iter(options.iter().copied());
        check(Role::Consumer, &["a:1".to_owned()], &options).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn logins_that_work_pass() {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for name in ["sasl.mechanism", "sasl.mechanisms"] {
                assert_eq!(faults(&[("security.protocol", "SASL_SSL"), (name, mechanism)]), [""; 0]);
            }
        }
        assert_eq!(faults(&[("security.protocol", "ssl")]), [""; 0]);
    }

    #[test]
    fn logins_that_never_would_are_told_with_what_works() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: [Case<'_>; 4] = [
            (&[("security.protocol", "sasl_ssl")], "options.security.protocol", "without saying which"),
            (
                &[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "GSSAPI")],
                "options.sasl.mechanism",
                "SCRAM-SHA-512",
            ),
            (
                &[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "OAUTHBEARER")],
                "options.sasl.mechanism",
                "SCRAM",
            ),
            (&[("sasl.oauthbearer.method", "oidc")], "options.sasl.oauthbearer.method", "SCRAM"),
        ];
        for (options, path, words) in cases {
            let told = faults(options);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("kafka.{path}: ")) && told[0].contains(words), "{told:?}");
        }
    }
}
