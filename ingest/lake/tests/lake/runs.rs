//! Requests and records of runs, between processes.

use stratus_lake::{Lake, LakeError};
use stratus_seam::ids::{RunId, ViewId};
use stratus_seam::runs::{RunRecord, RunStatus, ScheduleState, Trigger};

fn request(view: ViewId) -> RunRecord {
    RunRecord::requested(view, Trigger::Request, None, 1)
}

#[tokio::test]
async fn a_request_is_found_by_another_process_until_it_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let (asks, serves) = (Lake::open(&path).unwrap().runs(), Lake::open(&path).unwrap().runs());
    assert!(serves.requests().await.unwrap().is_empty(), "before there is a folder");
    let view = ViewId::new();
    let (one, two) = (request(view), request(view));
    for record in [&two, &one, &one] {
        asks.request(record).await.unwrap();
    }
    assert_eq!(serves.requests().await.unwrap(), [one.clone(), two.clone()], "oldest first, each once");
    assert!(serves.ids(view).await.unwrap().is_empty(), "a request is no record yet");
    for _ in 0..2 {
        serves.withdraw(one.id).await.unwrap();
    }
    assert_eq!(asks.requests().await.unwrap(), [two]);
    assert!(asks.views().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_record_is_written_over_and_read_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let (writes, reads) = (Lake::open(&path).unwrap().runs(), Lake::open(&path).unwrap().runs());
    let (view, other) = (ViewId::new(), ViewId::new());
    let record = request(view);
    assert_eq!(reads.read(view, record.id).await.unwrap(), None);
    let queued = record.step(RunStatus::Queued, 2).unwrap();
    let computing = queued.step(RunStatus::Computing { events: 3, of: 9 }, 4).unwrap();
    for record in [&queued, &computing] {
        writes.write(record).await.unwrap();
        assert_eq!(reads.read(view, record.id).await.unwrap().as_ref(), Some(record));
    }
    let later = request(view);
    writes.write(&later).await.unwrap();
    writes.write(&request(other)).await.unwrap();
    assert_eq!(reads.of_view(view).await.unwrap(), [computing.clone(), later.clone()]);
    writes.remove(view, computing.id).await.unwrap();
    assert_eq!(reads.ids(view).await.unwrap(), [later.id]);
    let state = ScheduleState { settled_ms: Some(5), next_ms: None };
    assert_eq!(reads.schedule(view).await.unwrap(), None);
    writes.write_schedule(view, &state).await.unwrap();
    assert_eq!(reads.schedule(view).await.unwrap(), Some(state));
    assert_eq!(reads.ids(view).await.unwrap(), [later.id], "a schedule is no record");
    writes.remove_view(view).await.unwrap();
    assert!(reads.of_view(view).await.unwrap().is_empty() && reads.schedule(view).await.unwrap().is_none());
    assert_eq!(reads.of_view(other).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_understood_is_named_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let runs = Lake::open(&dir.path().display().to_string()).unwrap().runs();
    let good = request(ViewId::new());
    runs.request(&good).await.unwrap();
    runs.write(&good).await.unwrap();
    let bad = RunId::new();
    let of_view = dir.path().join(format!("runs/{}/{bad}.json", good.view));
    let requested = dir.path().join(format!("runs/requests/{bad}.json"));
    for file in [&of_view, &requested] {
        std::fs::write(file, "{half").unwrap();
    }
    assert_eq!(runs.requests().await.unwrap(), std::slice::from_ref(&good));
    assert!(!requested.exists(), "it would be found again for ever");
    assert_eq!(runs.of_view(good.view).await.unwrap(), std::slice::from_ref(&good));
    let error = runs.read(good.view, bad).await.unwrap_err();
    assert!(matches!(error, LakeError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(&bad.to_string()), "{error}");
}
