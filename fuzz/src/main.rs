//! libFuzzer on the target that `FUZZ_TARGET` names. To be built and run by `scripts/fuzz`.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use millrace_fuzz::{TARGETS, Target};

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("`{name}` is no target; see scripts/fuzz"))
    })
}

fuzz_target!(|data: &[u8]| (target().run)(data));
