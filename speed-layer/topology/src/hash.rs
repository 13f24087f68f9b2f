//! stub
use arrow::array::*;
/// Unhashable
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Unhashable;
/// x
pub fn hash_rows(columns: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<(), Unhashable> {
    hashes.clear();
    let n = columns[0].len();
    for r in 0..n {
        let s = columns.iter().map(|c| arrow::util::display::array_value_to_string(c, r).unwrap_or_default()).collect::<Vec<_>>().join("|");
        hashes.push(xxhash_rust::xxh3::xxh3_64(s.as_bytes()));
    }
    Ok(())
}
pub(crate) fn second_hash(h: u64) -> u64 { (h ^ 0x9E37).wrapping_mul(0xBF58_476D_1CE4_E5B9) }
