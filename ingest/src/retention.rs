//! What the log's retention means for ingest: decisions over what was seen.

use stratus_seam::catalog::{Action, CatalogState, Source};
use stratus_seam::gaps::Gap;
use stratus_seam::log::LogError;
use stratus_seam::offsets::{Offset, OffsetVector, Partition};

/// The gap that a log leaves which no longer has what lies from `from` on; none for any other answer.
pub(crate) fn gap(
    source: &Source,
    partition: Partition,
    from: Offset,
    answer: &LogError,
    found_ms: u64,
) -> Option<Gap> {
    match answer {
        LogError::Gone { earliest, .. } if *earliest > from => {
            let log = source.log.clone();
            Some(Gap { source: source.id, log, partition, from, to: *earliest, found_ms })
        }
        _ => None,
    }
}

/// What is to be committed to the catalog for a gap: nothing if it stands there already, or the source was dropped.
pub(crate) fn record(catalog: &CatalogState, gap: &Gap) -> Vec<Action> {
    let known =
        |known: &Gap| known.partition == gap.partition && known.from <= gap.from && gap.to <= known.to;
    match catalog.source(gap.source) {
        Some(_) if !catalog.gaps_of(gap.source).iter().any(known) => vec![Action::RecordGap(gap.clone())],
        _ => Vec::new(),
    }
}

/// That a log still holds all of what was absorbed from it, or is long enough to have held it: one that ends below
/// has lost its tail, and gives the same offsets to other records.
pub(crate) fn check_end(absorbed: &OffsetVector, end: &OffsetVector) -> Result<(), LogError> {
    match absorbed.iter().find(|(partition, absorbed)| end.get(*partition) < *absorbed) {
        None => Ok(()),
        Some((partition, absorbed)) => Err(LogError::lost_its_tail(partition, end.get(partition), absorbed)),
    }
}

/// How many offsets ingest is ahead of what the log forgets next, by partition: at 0 it loses what comes.
pub(crate) fn headroom(
    absorbed: &OffsetVector,
    earliest: &OffsetVector,
    partitions: u32,
) -> impl Iterator<Item = (Partition, u64)> {
    (0..partitions)
        .map(|partition| (partition, absorbed.get(partition).saturating_sub(earliest.get(partition))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stratus_seam::catalog::{Commit, Connector};
    use stratus_seam::ids::SourceId;
    use stratus_seam::log::LogId;

    use super::*;

    fn source() -> Source {
        Source {
            id: SourceId::new(),
            name: "clicks".into(),
            columns: Vec::new(),
            connector: Connector::Kafka,
            options: BTreeMap::new(),
            log: LogId("l".into()),
            start: OffsetVector::zero(),
        }
    }

    fn gone(from: Offset, earliest: Offset) -> LogError {
        LogError::Gone { log: "l".into(), partition: 1, from, earliest }
    }

    #[test]
    fn only_what_the_log_forgot_is_a_gap() {
        let source = source();
        let found = gap(&source, 1, 5, &gone(5, 9), 7).unwrap();
        assert_eq!((found.partition, found.from, found.to, found.found_ms), (1, 5, 9, 7));
        assert!(gap(&source, 1, 9, &gone(5, 9), 7).is_none());
        assert!(gap(&source, 1, 5, &LogError::lost_its_tail(1, 3, 5), 7).is_none());
    }

    #[test]
    fn a_gap_is_recorded_once_and_a_longer_one_again() {
        let source = source();
        let found = gap(&source, 1, 5, &gone(5, 9), 7).unwrap();
        assert!(record(&CatalogState::default(), &found).is_empty(), "the source was dropped");
        let commit = |actions| Commit { id: SourceId::new().0, at_ms: 0, actions };
        let catalog =
            CatalogState::default().apply(&commit(vec![Action::CreateSource(source.clone())])).unwrap();
        let actions = record(&catalog, &found);
        let catalog = catalog.apply(&commit(actions)).unwrap();
        assert!(record(&catalog, &Gap { found_ms: 8, ..found.clone() }).is_empty());
        let longer = gap(&source, 1, 5, &gone(5, 12), 9).unwrap();
        let catalog = catalog.apply(&commit(record(&catalog, &longer))).unwrap();
        assert_eq!(catalog.gaps_of(source.id), [Gap { found_ms: 7, ..longer }]);
    }

    #[test]
    fn a_log_that_ends_below_what_was_absorbed_is_refused_by_name() {
        let absorbed = OffsetVector::from([(0, 4), (2, 9)]);
        assert!(check_end(&absorbed, &absorbed).is_ok());
        let error = check_end(&absorbed, &OffsetVector::from([(0, 5), (2, 8)])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("partition 2") && text.contains("offset 8, below 9"), "{text}");
    }

    #[test]
    fn headroom_is_what_lies_between_ingest_and_the_logs_beginning() {
        let (absorbed, earliest) =
            (OffsetVector::from([(0, 9), (1, 3)]), OffsetVector::from([(0, 4), (1, 3)]));
        assert_eq!(headroom(&absorbed, &earliest, 3).collect::<Vec<_>>(), [(0, 5), (1, 0), (2, 0)]);
    }
}
