//! Certificates of a test's own, by the `openssl` program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

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

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn openssl(dir: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(args).current_dir(dir).output().context("cannot run openssl")?;
    ensure!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
