//! Whether a server keeps what states write.

use crate::MapError;

/// What is worth knowing of a server that can be used, from what it answers to `INFO`.
///
/// # Errors
///
/// It may evict keys. A state whose values are evicted has lost its counts, so that any policy but `noeviction` is
/// refused, as the store of the views refuses it.
pub(super) fn warnings(what: &str, info: &str) -> Result<Vec<&'static str>, MapError> {
    let of = |name: &str| {
        info.lines().find_map(|line| line.trim_end().split_once(':').filter(|(of, _)| *of == name))
    };
    let mut warnings = Vec::new();
    match of("maxmemory_policy") {
        Some((_, "noeviction")) => {}
        Some((_, policy)) => {
            let cause = format!(
                "its maxmemory-policy is {policy}, with which it would drop states: set 'maxmemory-policy noeviction' in its configuration, and run CONFIG SET maxmemory-policy noeviction"
            );
            return Err(MapError::Unsuitable { what: what.to_owned(), cause });
        }
        None => warnings.push("maxmemory-policy could not be checked: it must be noeviction"),
    }
    if let Some((_, "0")) = of("aof_enabled") {
        warnings.push(
            "without an append-only file a restart of the server loses what states have written, and counts with it: set appendonly yes and appendfsync always",
        );
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_evicts_is_refused() {
        let good = "# Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n";
        assert!(warnings("Redis", good).unwrap().is_empty());
        for policy in ["allkeys-lru", "volatile-ttl"] {
            let error = warnings("Redis", &good.replace("noeviction", policy)).unwrap_err().to_string();
            assert!(error.contains(policy) && error.contains("CONFIG SET"), "{error}");
        }
        assert_eq!(warnings("Redis", "aof_enabled:1").unwrap().len(), 1);
        assert!(
            warnings("Redis", &good.replace("aof_enabled:1", "aof_enabled:0")).unwrap()[0].contains("append")
        );
    }
}
