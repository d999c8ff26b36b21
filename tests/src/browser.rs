//! A real browser without a window: Debian's Chromium, driven over the WebDriver protocol (W3C).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::process::{Launch, Process};
use crate::{http, ports, scratch, wait};

const START_LIMIT: Duration = Duration::from_secs(60);

/// One window. It closes when this is dropped.
pub struct Browser {
    _driver: Process,
    session: String,
}

impl Browser {
    /// Opens a window of this size, light or dark.
    ///
    /// # Errors
    ///
    /// If Chromium does not start; `scripts/bootstrap` installs it.
    pub fn open(width: u32, height: u32, is_dark: bool) -> Result<Self> {
        let port = ports::free()?;
        let dir = scratch::dir("browser")?;
        let launch = Launch::program("chromedriver", "chromedriver", &dir.join("chromedriver.log"));
        let driver = launch.arg(format!("--port={port}")).start().context("run scripts/bootstrap")?;
        let url = format!("http://127.0.0.1:{port}");
        wait::until_true("chromedriver answers", START_LIMIT, || {
            Ok(http::request("GET", &format!("{url}/status"), None).is_ok_and(|reply| reply.status == 200))
        })?;
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", dir.join("profile").display()),
        ];
        if is_dark {
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": args}}}});
        let made = call("POST", &format!("{url}/session"), &wanted)?;
        let id = made["sessionId"].as_str().with_context(|| format!("no session in {made}"))?;
        Ok(Self { _driver: driver, session: format!("{url}/session/{id}") })
    }

    /// # Errors
    ///
    /// If the page cannot be loaded.
    pub fn go(&self, url: &str) -> Result<()> {
        call("POST", &format!("{}/url", self.session), &json!({ "url": url })).map(|_| ())
    }

    /// The value of a JavaScript expression.
    ///
    /// # Errors
    ///
    /// If it throws.
    pub fn eval(&self, expression: &str) -> Result<Value> {
        let script = json!({"script": format!("return {expression};"), "args": []});
        call("POST", &format!("{}/execute/sync", self.session), &script)
    }

    /// The text of the first element that a CSS selector finds; empty without one.
    ///
    /// # Errors
    ///
    /// If the browser is gone.
    pub fn text(&self, selector: &str) -> Result<String> {
        let value = self.eval(&format!("document.querySelector({selector:?})?.innerText ?? ''"))?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// The texts of all elements that a CSS selector finds.
    ///
    /// # Errors
    ///
    /// If the browser is gone.
    pub fn texts(&self, selector: &str) -> Result<Vec<String>> {
        let value =
            self.eval(&format!("[...document.querySelectorAll({selector:?})].map((found) => found.innerText)"))?;
        Ok(serde_json::from_value(value)?)
    }

    /// Clicks the first element that a CSS selector finds, as a person would.
    ///
    /// # Errors
    ///
    /// If there is none, or something covers it.
    pub fn click(&self, selector: &str) -> Result<()> {
        let how = json!({"using": "css selector", "value": selector});
        let found = call("POST", &format!("{}/element", self.session), &how)?;
        let id = found.as_object().and_then(|found| found.values().next()?.as_str()).context("no element")?;
        call("POST", &format!("{}/element/{id}/click", self.session), &json!({})).map(|_| ())
    }

    /// Writes a picture of the window (PNG).
    ///
    /// # Errors
    ///
    /// If the browser or the disk refuses.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let reply = http::request("GET", &format!("{}/screenshot", self.session), None)?;
        let reply: Value = serde_json::from_str(&reply.body)?;
        let picture = reply["value"].as_str().context("no picture")?;
        Ok(fs::write(path, STANDARD.decode(picture)?)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver is killed next; without this its Chromium would stay for a moment.
        let _ = http::request("DELETE", &self.session, None);
    }
}

fn call(method: &str, url: &str, body: &Value) -> Result<Value> {
    let reply = http::request(method, url, Some(body.to_string()))?;
    ensure!(reply.status == 200, "{method} {url} answered {}: {}", reply.status, reply.body);
    let mut reply: Value = serde_json::from_str(&reply.body)?;
    Ok(reply["value"].take())
}
