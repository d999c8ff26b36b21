//! Tells the crate the target that only build scripts know. It never runs again, so it costs no rebuild.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=MILLRACE_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}
