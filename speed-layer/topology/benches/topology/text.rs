//! A text that somebody wrote: the prose of this repository, some thousand lines with their own frequencies of words.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};

use crate::shapes::{ROWS, payload};

const PROSE: [&str; 8] = [
    include_str!("../../../../ARCHITECTURE.md"),
    include_str!("../../../../README.md"),
    include_str!("../../../../docs/configuration.md"),
    include_str!("../../../../docs/redis.md"),
    include_str!("../../../../docs/sql.md"),
    include_str!("../../../../docs/topologies.md"),
    include_str!("../../../../docs/trident.md"),
    include_str!("../../../../docs/views.md"),
];

/// Its lines that are not empty, as many as a batch has; from the beginning again where there are too few.
pub(crate) fn lines() -> RecordBatch {
    let lines = PROSE.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty());
    let lines: Vec<&str> = lines.cycle().take(ROWS).collect();
    RecordBatch::try_new(payload(), vec![Arc::new(StringArray::from(lines))]).unwrap()
}
