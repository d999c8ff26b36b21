//! The name somebody probably meant.

/// The candidate nearest to `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', '.'], "");
    let name = plain(name);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1 + candidate.len().min(name.len()) / 4 && *distance < name.len().max(2)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["topic", "brokers", "options", "max_bytes", "partitioning"];
        let nearest = |name| nearest(name, names);
        assert_eq!(nearest("topc"), Some("topic"));
        assert_eq!(nearest("tpoic"), Some("topic"));
        assert_eq!(nearest("broker"), Some("brokers"));
        assert_eq!(nearest("maxBytes"), Some("max_bytes"));
        assert_eq!(nearest("max.bytes"), Some("max_bytes"));
        assert_eq!(nearest("colour"), None);
        assert_eq!(nearest(""), None);
    }
}
