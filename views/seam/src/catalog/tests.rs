use super::*;

fn commit(actions: Vec<Action>) -> Commit {
    Commit { id: Uuid::new_v4(), at_ms: 0, actions }
}

fn version(view: ViewId, number: u32, parent: Option<u32>, at: u64) -> Action {
    Action::PublishVersion(Version {
        view,
        number,
        parent,
        cut: OffsetVector::from([(0, at)]),
        generation: Generation::new(),
        fingerprint: "f".into(),
        descriptor: serde_json::Value::Null,
        files: Vec::new(),
        kind: RunKind::Full,
        groups: 0,
        events: 0,
        failed_rows: 0,
        published_ms: 0,
        took_ms: 0,
        run: None,
    })
}

fn with_a_view() -> (CatalogState, SourceId, ViewId) {
    let source = Source {
        id: SourceId::new(),
        name: "clicks".into(),
        columns: Vec::new(),
        connector: Connector::Directory,
        options: BTreeMap::new(),
        log: LogId("l".into()),
        start: OffsetVector::zero(),
    };
    let view = ViewDefinition {
        id: ViewId::new(),
        name: "page_views".into(),
        source: source.id,
        dimensions: BTreeMap::new(),
        sql: "SELECT count(*) AS n FROM clicks".into(),
        options: BTreeMap::new(),
        created_ms: 0,
    };
    let (s, v) = (source.id, view.id);
    let actions = vec![Action::CreateSource(source), Action::CreateView(view)];
    (CatalogState::default().apply(&commit(actions)).unwrap(), s, v)
}

#[test]
fn a_version_follows_the_newest_one_at_or_above_its_cut() {
    let (state, _, view) = with_a_view();
    let state = state.apply(&commit(vec![version(view, 1, None, 10)])).unwrap();
    let late = state.apply(&commit(vec![version(view, 1, None, 12)]));
    assert!(matches!(late, Err(CatalogMisfit::Superseded { .. })));
    let back = state.apply(&commit(vec![version(view, 2, Some(1), 9)]));
    assert!(matches!(back, Err(CatalogMisfit::CutWentBack { .. })));
    let state = state.apply(&commit(vec![version(view, 2, Some(1), 10)])).unwrap();
    assert_eq!((state.versions_of(view).len(), state.head), (2, 3));
}

#[test]
fn a_retired_version_is_gone_and_the_newest_never_goes() {
    let (state, _, view) = with_a_view();
    let published = [version(view, 1, None, 1), version(view, 2, Some(1), 2), version(view, 3, Some(2), 3)];
    let state = state.apply(&commit(published.into())).unwrap();
    let retire = |state: &CatalogState, numbers: &[u32]| {
        state.apply(&commit(vec![Action::RetireVersions { view, numbers: numbers.into() }]))
    };
    assert_eq!(retire(&state, &[1, 3]), Err(CatalogMisfit::NotRetirable { number: 3 }));
    assert_eq!(retire(&state, &[4]), Err(CatalogMisfit::NotRetirable { number: 4 }));
    let state = retire(&state, &[2, 1]).unwrap();
    let left: Vec<u32> = state.versions_of(view).iter().map(|version| version.number).collect();
    assert_eq!(left, [3]);
    assert_eq!(retire(&state, &[1]), Err(CatalogMisfit::NotRetirable { number: 1 }));
    let next = state.apply(&commit(vec![version(view, 4, Some(3), 3)])).unwrap();
    assert_eq!(next.versions_of(view).len(), 2);
    let gone = state.apply(&commit(vec![Action::RetireVersions { view: ViewId::new(), numbers: vec![3] }]));
    assert!(matches!(gone, Err(CatalogMisfit::Missing(_))));
}

#[test]
fn a_version_from_before_runs_had_records_is_read() {
    let Action::PublishVersion(written) = version(ViewId::new(), 1, None, 1) else { panic!() };
    let json = serde_json::to_string(&written).unwrap();
    assert!(!json.contains("\"run\""));
    assert_eq!(serde_json::from_str::<Version>(&json).unwrap(), written);
}

#[test]
fn what_is_in_use_does_not_go() {
    let (state, source, view) = with_a_view();
    let gone = state.apply(&commit(vec![Action::DropSource { id: source }]));
    assert!(matches!(gone, Err(CatalogMisfit::InUse { .. })));
    let both = vec![Action::DropView { id: view }, Action::DropSource { id: source }];
    let state = state.apply(&commit(both)).unwrap();
    assert!(state.views.is_empty() && state.sources.is_empty() && state.versions.is_empty());
}

#[test]
fn a_name_stands_for_one_relation() {
    let (state, _, _) = with_a_view();
    let mut again = state.sources["clicks"].clone();
    again.id = SourceId::new();
    again.name = "page_views".into();
    let taken = state.apply(&commit(vec![Action::CreateSource(again)]));
    assert_eq!(taken, Err(CatalogMisfit::Exists("page_views".into())));
}

#[test]
fn a_commit_reads_back_as_it_was_written() {
    let (state, _, view) = with_a_view();
    let written =
        commit(vec![version(view, 1, None, 10), Action::DropView { id: state.views["page_views"].id }]);
    let read: Commit = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
    assert_eq!(read, written);
}

#[test]
fn a_gap_is_recorded_once_and_goes_with_its_source() {
    let (state, source, view) = with_a_view();
    let gap = |from, to| Gap { source, log: LogId("l".into()), partition: 1, from, to, found_ms: 7 };
    let state = state.apply(&commit(vec![Action::RecordGap(gap(5, 9))])).unwrap();
    let again = state.apply(&commit(vec![Action::RecordGap(Gap { found_ms: 8, ..gap(5, 9) })])).unwrap();
    assert_eq!(again.gaps, state.gaps);
    assert_eq!(state.gaps_of(source), [gap(5, 9)]);
    assert_eq!(state.lost_below(source, &OffsetVector::from([(0, 9), (1, 7)])), 2);
    for wrong in
        [gap(5, 5), Gap { log: LogId("m".into()), ..gap(1, 2) }, Gap { source: SourceId::new(), ..gap(1, 2) }]
    {
        assert!(state.apply(&commit(vec![Action::RecordGap(wrong)])).is_err());
    }
    let both = vec![Action::DropView { id: view }, Action::DropSource { id: source }];
    assert!(state.apply(&commit(both)).unwrap().gaps.is_empty());
}
