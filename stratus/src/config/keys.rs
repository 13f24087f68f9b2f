//! The keys there are, and the nearest one to a key that there is not.

/// Every key, as `section.key`.
pub(super) const KEYS: [&str; 8] = [
    "data.dir",
    "lake.url",
    "state.kind",
    "state.url",
    "state.shards",
    "kafka.brokers",
    "pg.listen",
    "http.listen",
];

/// Tables whose entries are named by the user.
pub(super) const OPEN: [&str; 2] = ["kafka.properties", "pg.users"];

/// The key of that name.
pub(super) fn known(name: &str) -> Option<&'static str> {
    KEYS.into_iter().find(|key| *key == name)
}

/// The open table of that name.
pub(super) fn open(name: &str) -> Option<&'static str> {
    OPEN.into_iter().find(|table| *table == name)
}

/// Whether there is a section of that name.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.split_once('.').is_some_and(|(section, _)| section == name))
}

/// The key that was probably meant: one with few letters changed, or the same last word in another section.
pub(super) fn meant(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let nearest = KEYS.into_iter().map(|key| (distance(&name, key), key)).min();
    if let Some((_, key)) = nearest.filter(|(distance, key)| *distance <= key.len() / 4) {
        return Some(key);
    }
    let last = name.rsplit('.').next().unwrap_or(&name);
    let mut same_word = KEYS.into_iter().filter(|key| key.rsplit('.').next() == Some(last));
    same_word.next().filter(|_| same_word.next().is_none())
}

/// How many letters have to be put in, left out or changed to make one text the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, (b, above)) in other.iter().zip(row.windows(2)).enumerate() {
            let changed = above[0] + usize::from(a != *b);
            next.push(changed.min(above[1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key() {
        assert_eq!(meant("state.shard"), Some("state.shards"));
        assert_eq!(meant("data.directory"), None);
        assert_eq!(meant("dat.dir"), Some("data.dir"));
        assert_eq!(meant("stream.brokers"), Some("kafka.brokers"));
        // Two sections have a `listen`: no guess is better than a wrong one.
        assert_eq!(meant("server.listen"), None);
        assert_eq!(meant("colour"), None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
