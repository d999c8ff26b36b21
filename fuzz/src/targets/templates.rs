//! A folder of templates: files separated by NUL bytes, the name of each in its first line.

use millrace_indexer::map::{Plan, RuleOptions, ServerVersion, TemplateFile, TemplateKind, TemplateSet};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files: Vec<TemplateFile> = text
        .split('\0')
        .filter_map(|file| file.split_once('\n'))
        .map(|(name, text)| TemplateFile { name: name.to_owned(), text: text.to_owned() })
        .collect();
    let set = match TemplateSet::parse(&files) {
        Ok(set) => set,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            for fault in faults {
                assert!(files.iter().any(|file| file.name == fault.file), "a fault of no file: {fault}");
                assert!(!fault.what.is_empty());
            }
            return;
        }
    };
    // What stands twice counts once.
    assert!(set.bodies().count() <= files.len());
    let _ = set.overlaps().count();
    let bodies: Vec<(TemplateKind, String)> = set.bodies().map(|(kind, name, _)| (kind, name.to_owned())).collect();
    for (kind, name) in bodies {
        let Some(composed) = set.composed(kind, &name) else { continue };
        // A mapping may be one that Elasticsearch refuses: then so do we, in words.
        if let Err(error) =
            Plan::compile(&composed.mappings, &composed.settings, &RuleOptions::default(), ServerVersion::default())
        {
            assert!(!error.to_string().is_empty());
        }
    }
    let _ = set.compose("applogs-a-2026.11.23");
}
