//! A local disk as an object store that keeps its promises when the power goes.
//!
//! `object_store`'s own file system store renames files into place without syncing them, so that after a power cut
//! a name may stand for an empty file: a catalog commit could outlive the Parquet files that it names. Here a file
//! is synced before it gets its name, and its folder before the call returns. Readers see only whole files, under
//! `kill -9` as under power loss.
//!
//! What remains: a name is visible to other processes a moment before its folder is synced, so one of them may have
//! read a commit that a power cut then takes back. That is no more than if the writer had been slower: what was
//! taken back is written again from the log, and nothing durable refers to it, because its writer had not returned.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use uuid::Uuid;

/// The local disk from its root, with durable writes.
#[derive(Debug, Clone)]
pub struct DurableDisk {
    files: Arc<LocalFileSystem>,
}

impl DurableDisk {
    /// The disk from `/`.
    pub fn new() -> Self {
        Self { files: Arc::new(LocalFileSystem::new()) }
    }
}

impl Default for DurableDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for DurableDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableDisk")
    }
}

/// Runs file system calls where they may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(source) => Err(Error::JoinError { source }),
    }
}

fn failed(what: &str, path: &FilePath, source: io::Error) -> Error {
    let source = io::Error::new(source.kind(), format!("{what} {}: {source}", path.display()));
    Error::Generic { store: "DurableDisk", source: source.into() }
}

/// Makes the entries of a folder durable.
fn sync_folder(folder: &FilePath) -> Result<()> {
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(|source| failed("could not sync the folder", folder, source))
}

/// Makes a folder with its parents, durably.
fn make_folder(folder: &FilePath) -> Result<()> {
    let missing: Vec<&FilePath> = folder.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|source| failed("could not make the folder", folder, source))?;
    for made in missing.into_iter().rev() {
        if let Some(parent) = made.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

/// The folder of a file.
fn folder_of(path: &FilePath) -> Result<&FilePath> {
    path.parent().ok_or_else(|| failed("no folder holds", path, ErrorKind::InvalidInput.into()))
}

/// Writes a whole file under a name that listings leave out.
fn stage(path: &FilePath, payload: &PutPayload) -> Result<PathBuf> {
    make_folder(folder_of(path)?)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}", Uuid::new_v4().as_u128()));
    let staged = PathBuf::from(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&staged)?;
        for part in payload {
            file.write_all(part)?;
        }
        file.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&staged);
        failed("could not write", &staged, source)
    })?;
    Ok(staged)
}

fn put(path: &FilePath, payload: &PutPayload, mode: &PutMode) -> Result<()> {
    let staged = stage(path, payload)?;
    let named = match mode {
        PutMode::Create => {
            let linked = fs::hard_link(&staged, path);
            let _ = fs::remove_file(&staged);
            linked
        }
        _ => fs::rename(&staged, path),
    };
    match named {
        Ok(()) => sync_folder(folder_of(path)?),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => {
            Err(Error::AlreadyExists { path: path.display().to_string(), source: source.into() })
        }
        Err(source) => {
            let _ = fs::remove_file(&staged);
            Err(failed("could not name", path, source))
        }
    }
}

#[async_trait]
impl ObjectStore for DurableDisk {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
            return self.files.put_opts(location, payload, options).await;
        }
        let path = self.files.path_to_filesystem(location)?;
        blocking(move || put(&path, &payload, &options.mode)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let folder = folder_of(&path)?.to_path_buf();
        blocking(move || make_folder(&folder)).await?;
        let upload = self.files.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { upload, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await?;
        self.sync_named(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await?;
        self.sync_named(to).await
    }
}

impl DurableDisk {
    async fn sync_named(&self, location: &Path) -> Result<()> {
        let path = self.files.path_to_filesystem(location)?;
        blocking(move || sync_file(&path)).await
    }
}

/// Makes a file that has its name durable, with the name.
fn sync_file(path: &FilePath) -> Result<()> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(|source| failed("could not sync", path, source))?;
    sync_folder(folder_of(path)?)
}

/// An upload in parts that is durable once it is complete.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.upload.complete().await?;
        let path = self.path.clone();
        blocking(move || sync_file(&path)).await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_put_if_absent_is_won_once_and_leaves_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DurableDisk::new();
        let root = Path::from_absolute_path(dir.path()).unwrap();
        let file = root.clone().join("a").join("b").join("1.json");
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let puts = (0..8u8).map(|i| {
            let (disk, file, create) = (disk.clone(), file.clone(), create.clone());
            async move { disk.put_opts(&file, vec![i; 1 << 16].into(), create).await }
        });
        let won = futures::future::join_all(puts).await;
        assert_eq!(won.iter().filter(|put| put.is_ok()).count(), 1);
        let lost: Vec<_> = won.iter().filter_map(|put| put.as_ref().err()).collect();
        assert!(lost.iter().all(|error| matches!(error, Error::AlreadyExists { .. })), "{lost:?}");
        let winner = won.iter().position(Result::is_ok).unwrap();
        let bytes = disk.get(&file).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, vec![u8::try_from(winner).unwrap(); 1 << 16]);
        let on_disk: Vec<_> = fs::read_dir(dir.path().join("a/b")).unwrap().collect();
        assert_eq!(on_disk.len(), 1);
    }

    #[tokio::test]
    async fn a_staged_file_that_a_crash_left_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DurableDisk::new();
        let root = Path::from_absolute_path(dir.path()).unwrap();
        stage(&dir.path().join("x.parquet"), &PutPayload::from_static(b"half")).unwrap();
        disk.put(&root.clone().join("y.parquet"), "whole".into()).await.unwrap();
        let listed: Vec<_> = disk.list(Some(&root)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].location.filename(), Some("y.parquet"));
    }
}
