//! The page at the indexer's `/`, in a real browser: states, sorting, an alarm that appears and goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_common::ledger::sources::HostState;
use millrace_tests::browser::Browser;
use millrace_tests::fake_elasticsearch::FakeElasticsearch;
use millrace_tests::indexer_rig::LIMIT;
use millrace_tests::kafka::Kafka;
use millrace_tests::wait;

use super::ledger_rig::LedgerRig;

const BEAT_MS: u64 = 1_000;

/// Waits for the big word while the host beats, or is silent.
fn wait_for_state(rig: &LedgerRig, browser: &Browser, word: &str, beats: bool) -> Result<()> {
    wait::until_true(&format!("the page says {word}"), LIMIT, || {
        if beats {
            rig.beat(BEAT_MS, HostState::Running)?;
        }
        Ok(browser.text("#state")?.ends_with(word))
    })
}

#[test]
fn the_page_shows_states_sorts_and_lets_an_alarm_come_and_go() -> Result<()> {
    let kafka = Kafka::shared()?;
    let fake = FakeElasticsearch::start()?;
    let rig = LedgerRig::new(kafka, &fake.url(), "page", 2)?;
    let files = [rig.file("/var/log/b.log", 0), rig.file("/var/log/a<b>&.log", 1)];
    for (file, lines) in files.into_iter().zip([100, 20]) {
        rig.send(file, 0..lines)?;
        rig.report(file, lines)?;
    }
    rig.beat(BEAT_MS, HostState::Running)?;
    let (mut indexer, admin) = rig.indexer("indexer")?;
    let browser = Browser::open(1200, 1400, false)?;
    browser.go(&format!("http://{admin}/"))?;
    wait_for_state(&rig, &browser, "OKAY", true)?;
    assert_eq!(browser.eval("document.title")?, "OKAY: Millrace");
    let paths = || browser.texts("#sources tbody tr td:first-child");
    wait::until_true("both files are listed", LIMIT, || Ok(paths()?.len() == 2))?;
    browser.click("#sources th:first-child button")?;
    assert_eq!(paths()?, ["/var/log/a<b>&.log", "/var/log/b.log"], "text is text");
    assert_eq!(browser.eval("document.querySelector('#sources th').getAttribute('aria-sort')")?, "ascending");
    browser.click("#sources th:first-child button")?;
    assert_eq!(paths()?, ["/var/log/b.log", "/var/log/a<b>&.log"]);
    ensure!(browser.texts("#hosts tbody tr")?.len() >= 1);

    // The host dies; the page says so by name, and takes it back when it is there again.
    wait_for_state(&rig, &browser, "ERROR", false)?;
    let row = browser.text("#hosts tbody tr")?;
    ensure!(row.contains("web-1") && row.contains("SILENT"), "{row}");
    wait_for_state(&rig, &browser, "OKAY", true)?;

    // The indexer dies: old figures are not shown as new.
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    wait::until_true("the page says that nobody answers", LIMIT, || {
        Ok(browser.text("#state")?.ends_with("UNKNOWN") && browser.text("#updated")?.contains("does not answer"))
    })
}

/// `PAGE_PICTURES=DIR` keeps pictures of the page: wide and narrow, light and dark.
#[test]
fn the_page_fits_a_phone_and_a_dark_room() -> Result<()> {
    let kafka = Kafka::shared()?;
    let fake = FakeElasticsearch::start()?;
    let rig = LedgerRig::new(kafka, &fake.url(), "page-narrow", 1)?;
    let file = rig
        .file("/var/log/containers/a-long-name-of-a-pod-7d9c5b6f4-x2x9k_namespace_container-0123456789abcdef.log", 0);
    rig.send(file, 0..200)?;
    rig.report(file, 250)?;
    rig.beat(30_000, HostState::Running)?;
    let (mut indexer, admin) = rig.indexer("indexer")?;
    let pictures = std::env::var_os("PAGE_PICTURES");
    for (name, width, is_dark) in [("wide", 1280, false), ("phone", 400, true)] {
        let browser = Browser::open(width, 1600, is_dark)?;
        browser.go(&format!("http://{admin}/"))?;
        wait::until_true("the file is listed", LIMIT, || {
            Ok(browser.text("#sources tbody")?.contains("0123456789abcdef"))
        })?;
        // Tables scroll within themselves, the page does not.
        let excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.eval(excess)?, 0, "{name}: it is wider than its window");
        let paper = browser.eval("getComputedStyle(document.body).backgroundColor")?;
        assert_eq!(paper, if is_dark { "rgb(22, 25, 29)" } else { "rgb(255, 255, 255)" });
        if let Some(dir) = &pictures {
            std::thread::sleep(Duration::from_secs(6));
            browser.screenshot(&std::path::Path::new(dir).join(format!("{name}.png")))?;
        }
    }
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    Ok(())
}
