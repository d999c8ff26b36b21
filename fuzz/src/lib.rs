//! The parsers of bytes that come from outside, each with what must hold for any input. A target panics if it does not.
//!
//! `scripts/fuzz` looks for such inputs, guided by coverage; the unit test below replays what is stored in `corpus/`.

mod targets;

/// A parser and what must hold of it.
pub struct Target {
    /// Also the name of its folder in `corpus/`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 6] = [
    Target { name: "record", run: targets::record::run },
    Target { name: "reply", run: targets::reply::run },
    Target { name: "templates", run: targets::templates::run },
    Target { name: "checkpoint", run: targets::checkpoint::run },
    Target { name: "shipper-config", run: targets::config::shipper },
    Target { name: "indexer-config", run: targets::config::indexer },
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_stored_corpus_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let folders = fs::read_dir(&corpus).expect("the folder is stored").count();
        assert_eq!(folders, TARGETS.len(), "a folder for each target");
        for target in &TARGETS {
            let mut num_inputs = 0;
            for entry in fs::read_dir(corpus.join(target.name)).expect("the target has a folder") {
                let path = entry.expect("a readable folder").path();
                // Says which one it was, should it fail.
                println!("{}", path.display());
                (target.run)(&fs::read(&path).expect("a readable file"));
                num_inputs += 1;
            }
            assert!(num_inputs > 0, "{} has no inputs", target.name);
        }
    }
}
