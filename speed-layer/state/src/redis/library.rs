//! The functions that run inside the server.

use std::sync::LazyLock;

use stratus_seam::shard::UNDO_DEPTH;

/// The library of this version.
pub(super) static LIBRARY: LazyLock<Library> = LazyLock::new(|| Library::of(include_str!("library.lua")));

/// A library whose name tells its contents, so that versions of this program can share a server: none replaces the
/// functions of another.
pub(super) struct Library {
    /// `stratus_` and a hash of the source.
    pub(super) name: String,
    /// The source, as FUNCTION LOAD takes it.
    pub(super) code: String,
}

impl Library {
    fn of(template: &str) -> Self {
        let body = template.replace("DEPTH", &UNDO_DEPTH.to_string());
        let name = format!("stratus_{:016x}", fnv(body.as_bytes()));
        let code = format!("#!lua name={name}\n{}", body.replace("LIBRARY", &name));
        Self { name, code }
    }

    /// The full name of one of its functions.
    pub(super) fn function(&self, short: &str) -> String {
        format!("{}_{short}", self.name)
    }
}

/// FNV-1a: it tells versions apart and protects against nobody.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_the_contents() {
        let (a, b) = (Library::of("f(DEPTH)"), Library::of("g(DEPTH)"));
        assert_ne!(a.name, b.name);
        assert!(a.code.starts_with(&format!("#!lua name={}\n", a.name)) && a.code.ends_with("f(16)"));
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert!(!LIBRARY.code.contains("LIBRARY") && !LIBRARY.code.contains("DEPTH"));
    }
}
