//! What only a file can do wrong.

use stratus_map_states::{MapError, RedbMaps};

#[tokio::test]
async fn a_file_belongs_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states.redb");
    let maps = RedbMaps::open(&path).await.unwrap();
    let error = RedbMaps::open(&path).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("states.redb") && text.contains("it is in use"), "{text}");
    drop(maps);
    RedbMaps::open(&path).await.unwrap();
    let files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["states.redb"]);
}

#[tokio::test]
async fn what_is_no_file_of_states_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "this is no file of states, but a long text\n".repeat(200)).unwrap();
    let error = RedbMaps::open(&path).await.unwrap_err();
    assert!(matches!(error, MapError::Damaged { .. }), "{error:?}");
    let error = RedbMaps::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, MapError::Unavailable { .. }), "{error:?}");
}
