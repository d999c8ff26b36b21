//! Certificates of a test's own, by the `openssl` program and its library.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};

/// A certificate authority in a folder.
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one; `dir` must be there and be its own.
    ///
    /// # Errors
    ///
    /// If `openssl` fails.
    pub fn new(dir: &Path) -> Result<Self> {
        let new = ["req", "-x509", "-days", "2", "-subj", "/CN=an authority", "-out", "ca.pem", "-keyout", "ca.key"];
        openssl(dir, &[&new[..], &KEY].concat())?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Its certificate, a PEM file.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Writes `<name>.pem` and `<name>.key` for a server that is known as `alternative`, such as `IP:127.0.0.1`.
    ///
    /// # Errors
    ///
    /// If `openssl` fails.
    pub fn issue(&self, name: &str, alternative: &str) -> Result<(PathBuf, PathBuf)> {
        let file = |ending: &str| format!("{name}.{ending}");
        let (key, request) = (file("key"), file("csr"));
        let subject = format!("/CN={name}");
        openssl(&self.dir, &[&["req", "-subj", &subject, "-out", &request, "-keyout", &key][..], &KEY].concat())?;
        fs::write(self.dir.join(file("ext")), format!("subjectAltName={alternative}\n"))?;
        let (extension, certificate) = (file("ext"), file("pem"));
        let sign = ["x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let files = ["-in", &request, "-extfile", &extension, "-out", &certificate];
        openssl(&self.dir, &[&sign[..], &files].concat())?;
        Ok((self.dir.join(certificate), self.dir.join(key)))
    }
}

impl Authority {
    /// Writes `<name>.pem` and `<name>.key` for a client, valid for this long from now on.
    ///
    /// # Errors
    ///
    /// If the authority's own files cannot be read, or `openssl` fails.
    pub fn issue_for(&self, name: &str, validity: Duration) -> Result<(PathBuf, PathBuf)> {
        // Clocks are told in whole seconds.
        self.issue_between(name, None, -1..i64::try_from(validity.as_secs())?)
    }

    /// As [`Authority::issue`], valid between these seconds from now on.
    ///
    /// # Errors
    ///
    /// If the authority's own files cannot be read, or `openssl` fails.
    pub fn issue_between(
        &self,
        name: &str,
        alternative: Option<&str>,
        seconds: Range<i64>,
    ) -> Result<(PathBuf, PathBuf)> {
        let read = |name: &str| fs::read(self.dir.join(name));
        let (ca, ca_key) = (X509::from_pem(&read("ca.pem")?)?, PKey::private_key_from_pem(&read("ca.key")?)?);
        let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
        let mut subject = X509NameBuilder::new()?;
        subject.append_entry_by_text("CN", name)?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let mut certificate = X509::builder()?;
        certificate.set_version(2)?;
        certificate.set_serial_number(&*BigNum::from_u32(u32::try_from(now)?)?.to_asn1_integer()?)?;
        certificate.set_subject_name(&subject.build())?;
        certificate.set_issuer_name(ca.subject_name())?;
        certificate.set_pubkey(&key)?;
        certificate.set_not_before(&*Asn1Time::from_unix(now + seconds.start)?)?;
        certificate.set_not_after(&*Asn1Time::from_unix(now + seconds.end)?)?;
        if let Some(alternative) = alternative {
            let mut names = SubjectAlternativeName::new();
            match alternative.split_once(':') {
                Some(("IP", ip)) => names.ip(ip),
                Some(("DNS", host)) => names.dns(host),
                _ => bail!("`{alternative}` is neither IP:… nor DNS:…"),
            };
            let extension = names.build(&certificate.x509v3_context(Some(&ca), None))?;
            certificate.append_extension(extension)?;
        }
        certificate.sign(&ca_key, MessageDigest::sha256())?;
        let (pem, key_file) = (self.dir.join(format!("{name}.pem")), self.dir.join(format!("{name}.key")));
        fs::write(&pem, certificate.build().to_pem()?)?;
        fs::write(&key_file, key.private_key_to_pem_pkcs8()?)?;
        Ok((pem, key_file))
    }
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn openssl(dir: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(args).current_dir(dir).output().context("cannot run openssl")?;
    ensure!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
