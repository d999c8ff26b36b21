//! Logins that would fail when the client is made, or wait for ever for a token that nobody brings.

use super::oauth::{EXTENSIONS, TOKEN_FILE};
use super::{OptionFault, Options};

const SUPPORTED: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", OAUTHBEARER];
const OAUTHBEARER: &str = "OAUTHBEARER";

const PROTOCOL: &str = "security.protocol";
const MECHANISM: &str = "sasl.mechanism";

/// What is wrong with the way of logging in, if anything is.
pub(super) fn check(options: &Options) -> Option<OptionFault> {
    let written = ["sasl.mechanisms", MECHANISM].into_iter().find_map(|name| Some((name, options.get(name)?)));
    let protocol = options.get(PROTOCOL).map_or("plaintext", str::trim);
    let is_sasl = protocol.to_ascii_lowercase().starts_with("sasl");
    if let Some(fault) = check_token(options, written, is_sasl.then_some(protocol)) {
        return Some(fault);
    }
    if !is_sasl {
        return None;
    }
    let Some((name, mechanism)) = written else {
        let remedy = format!("set `{MECHANISM}` to {}", SUPPORTED.join(", "));
        return Some(OptionFault::option(PROTOCOL, "asks for a login without saying which kind", remedy));
    };
    if SUPPORTED.contains(&mechanism) {
        return None;
    }
    let remedy = format!("write {} over TLS (`sasl_ssl`), or log in with a client certificate", SUPPORTED.join(", "));
    Some(OptionFault::option(name, format!("`{mechanism}` is not built in"), remedy))
}

/// OAUTHBEARER, its token and a protocol with a login stand together, or not at all.
fn check_token(options: &Options, written: Option<(&str, &str)>, sasl: Option<&str>) -> Option<OptionFault> {
    let given = [TOKEN_FILE, EXTENSIONS].into_iter().find(|name| options.get(name).is_some());
    let Some((name, _)) = written.filter(|(_, mechanism)| *mechanism == OAUTHBEARER) else {
        let remedy = format!("set `{MECHANISM}` to {OAUTHBEARER}, or remove it");
        return Some(OptionFault::option(
            given?,
            format!("is for a login by {OAUTHBEARER}, which is not asked for"),
            remedy,
        ));
    };
    if sasl.is_none() {
        let what = format!("would not be used: `{PROTOCOL}` asks for no login");
        let remedy = format!("set `{PROTOCOL}` to sasl_ssl (sasl_plaintext shows the token to the network)");
        return Some(OptionFault::option(name, what, remedy));
    }
    if options.get(TOKEN_FILE).is_none() {
        let remedy = format!("name the file that holds it, and that something renews, in `{TOKEN_FILE}`");
        return Some(OptionFault::option(name, "would wait for a token for ever", remedy));
    }
    None
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
        for protocol in ["sasl_ssl", "SASL_PLAINTEXT"] {
            let mut options = vec![
                ("security.protocol", protocol),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.token_file", "/token"),
            ];
            assert_eq!(faults(&options), [""; 0]);
            options.push(("sasl.oauthbearer.extensions", "logicalCluster=lkc-1, identityPoolId=pool-=1"));
            assert_eq!(faults(&options), [""; 0]);
        }
    }

    #[test]
    fn logins_that_never_would_are_told_with_what_works() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let sasl = ("security.protocol", "sasl_ssl");
        let oauthbearer = ("sasl.mechanism", "OAUTHBEARER");
        let file = ("sasl.oauthbearer.token_file", "/token");
        let cases: [Case<'_>; 13] = [
            (&[("security.protocol", "sasl_ssl")], "options.security.protocol", "without saying which"),
            (
                &[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "GSSAPI")],
                "options.sasl.mechanism",
                "SCRAM-SHA-512",
            ),
            (&[sasl, oauthbearer], "options.sasl.mechanism", "`sasl.oauthbearer.token_file`"),
            (&[oauthbearer, file], "options.sasl.mechanism", "set `security.protocol` to sasl_ssl"),
            (&[oauthbearer, file, ("security.protocol", "ssl")], "options.sasl.mechanism", "asks for no login"),
            (&[file], "options.sasl.oauthbearer.token_file", "set `sasl.mechanism` to OAUTHBEARER"),
            (&[sasl, ("sasl.mechanism", "PLAIN"), file], "options.sasl.oauthbearer.token_file", "or remove it"),
            (
                &[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.oauthbearer.extensions", "a=b")],
                "options.sasl.oauthbearer.extensions",
                "OAUTHBEARER",
            ),
            (
                &[sasl, oauthbearer, file, ("sasl.oauthbearer.extensions", "auth=b")],
                "options.sasl.oauthbearer.extensions",
                "the token itself",
            ),
            (
                &[sasl, oauthbearer, file, ("sasl.oauthbearer.extensions", "a")],
                "options.sasl.oauthbearer.extensions",
                "name=value",
            ),
            (
                &[sasl, oauthbearer, file, ("sasl.oauthbearer.method", "oidc")],
                "options.sasl.oauthbearer.method",
                "`sasl.oauthbearer.token_file`",
            ),
            (
                &[sasl, oauthbearer, file, ("sasl.oauthbearer.config", "principal=hunter2")],
                "options.sasl.oauthbearer.config",
                "unsigned",
            ),
            (
                &[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.oauthbearer.token", "hunter2")],
                "options.sasl.oauthbearer.token",
                "name a file that holds it in `sasl.oauthbearer.token_file`",
            ),
        ];
        for (options, path, words) in cases {
            let told = faults(options);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("kafka.{path}: ")) && told[0].contains(words), "{told:?}");
            assert!(!told[0].contains("hunter2"), "{told:?}");
        }
    }
}
