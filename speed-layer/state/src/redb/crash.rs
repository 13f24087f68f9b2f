//! Crashes on a simulated disk. Whatever was not flushed may be lost, in any part and any order, and writes may be
//! torn between sectors. What is found afterwards must be what the store held after some step of the run, no earlier
//! than the last step that was flushed: so T never stands on anything that was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use stratus_seam::ids::{Attempt, Generation, SourceId, Token, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::log::LogId;
use stratus_seam::offsets::{OffsetRange, OffsetVector};
use stratus_seam::shard::{Change, Scope, ShardCommit, Verdict};
use stratus_seam::store::{Durability, LedgerWrite, SourceState, StateStore, TxnChanges};

use super::RedbStore;
use crate::faults::Dice;
use crate::memory::MemoryStore;

const SECTOR: usize = 512;
const SHARDS: u32 = 4;

#[derive(Clone)]
struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    /// What the process reads back.
    now: Vec<u8>,
    /// What a crash cannot take.
    flushed: Vec<u8>,
    /// What was done since, in order.
    loose: Vec<Loose>,
    /// What crashes would have left, each with the bounds of what may be found on it.
    images: Vec<(Vec<u8>, usize, usize)>,
    run: Arc<Run>,
    dice: Dice,
    /// Of a hundred accesses, how many leave an image.
    often: u32,
}

enum Loose {
    Written(usize, Vec<u8>),
    Resized(usize),
}

/// How far the run is, in steps.
#[derive(Default)]
struct Run {
    flushed: AtomicUsize,
    begun: AtomicUsize,
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Platter {
    fn maybe_crash(&mut self) {
        if self.dice.below(100) >= self.often {
            return;
        }
        // Sometimes nearly all of it arrived, sometimes hardly anything.
        let arrives = [5, 50, 95][self.dice.below(3) as usize];
        let mut image = self.flushed.clone();
        for loose in &self.loose {
            match loose {
                Loose::Resized(len) if self.dice.below(100) < arrives => image.resize(*len, 0),
                Loose::Resized(_) => {}
                Loose::Written(at, bytes) => {
                    for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                        if self.dice.below(100) < arrives {
                            put(&mut image, at + i * SECTOR, sector);
                        }
                    }
                }
            }
        }
        let (flushed, begun) =
            (self.run.flushed.load(Ordering::SeqCst), self.run.begun.load(Ordering::SeqCst));
        self.images.push((image, flushed, begun));
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let bytes = platter.now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.maybe_crash();
        platter.now.resize(len as usize, 0);
        platter.loose.push(Loose::Resized(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.maybe_crash();
        platter.flushed = platter.now.clone();
        platter.loose.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.maybe_crash();
        let at = offset as usize;
        platter.now[at..at + data.len()].copy_from_slice(data);
        platter.loose.push(Loose::Written(at, data.to_vec()));
        Ok(())
    }
}

fn disk(image: Vec<u8>, run: Arc<Run>, seed: u64, often: u32) -> Disk {
    let (now, flushed) = (image.clone(), image);
    let (loose, images, dice) = (Vec::new(), Vec::new(), Dice(seed));
    Disk(Arc::new(Mutex::new(Platter { now, flushed, loose, images, run, dice, often })))
}

fn open(disk: &Disk) -> Result<RedbStore, super::OpenError> {
    let disk = disk.clone();
    RedbStore::open_with(PathBuf::from("simulated"), |builder| builder.create_with_backend(disk))
}

/// Everything that a store shows of the source, as text.
async fn all_of(store: &dyn StateStore, source: SourceId, scopes: &BTreeSet<Scope>) -> String {
    let state = store.source(source).await.unwrap();
    let scopes: Vec<_> = scopes.iter().copied().collect();
    let mut all = format!("{:?} {:?}", state.ledger.read().await, state.ledger.txns(0).await);
    for shard in 0..SHARDS {
        // Undo is in the order of the keys in one store, and as committed in the other.
        let mut tail = state.shards.tail(shard, 0, &scopes).await.unwrap();
        tail.iter_mut().flat_map(|tail| tail.undo.values_mut()).for_each(|undo| undo.sort());
        all += &format!("\n{:?} {tail:?}", state.shards.meta(shard).await.unwrap().map(|(meta, _)| meta));
        for scope in &scopes {
            all += &format!(" {:?}", state.shards.page(shard, *scope, None, 10_000).await.unwrap());
        }
    }
    all
}

/// The run: every step is made on the disk and on a plain store that says what it must lead to.
struct Steps {
    source: SourceId,
    real: SourceState,
    plain: SourceState,
    store: MemoryStore,
    scopes: BTreeSet<Scope>,
    run: Arc<Run>,
    after: Vec<String>,
}

impl Steps {
    async fn done(&mut self) {
        self.after.push(all_of(&self.store, self.source, &self.scopes).await);
    }

    fn begin(&self, steps: usize) {
        self.run.begun.fetch_add(steps, Ordering::SeqCst);
    }

    async fn write(
        &mut self,
        before: Option<&Ledger>,
        next: &Ledger,
        txns: TxnChanges,
        durability: Durability,
    ) {
        self.begin(1);
        let expected = before.map(|ledger| (ledger.token, ledger.revision));
        let written = self.plain.ledger.write(expected, next, txns.clone(), durability).await.unwrap();
        assert_eq!(written, LedgerWrite::Written);
        self.done().await;
        let written = self.real.ledger.write(expected, next, txns, durability).await.unwrap();
        assert_eq!(written, LedgerWrite::Written);
        if durability == Durability::Now {
            self.run.flushed.store(self.after.len() - 1, Ordering::SeqCst);
        }
    }

    /// The commits of a txid, sent at once as the speed layer sends them.
    async fn commit(&mut self, commits: [ShardCommit; SHARDS as usize]) {
        self.begin(commits.len());
        for commit in &commits {
            assert_eq!(self.plain.shards.commit(commit).await.unwrap(), Ok(Verdict::Apply));
            self.done().await;
        }
        let on = &self.real.shards;
        let [a, b, c, d] = &commits;
        let done = tokio::join!(biased; on.commit(a), on.commit(b), on.commit(c), on.commit(d));
        for done in [done.0, done.1, done.2, done.3] {
            assert_eq!(done.unwrap(), Ok(Verdict::Apply));
        }
    }

    async fn claim(&mut self, seen: Option<(Generation, Token)>, generation: Generation, token: Token) {
        for shard in 0..SHARDS {
            self.begin(1);
            assert!(self.plain.shards.claim(shard, seen, generation, token).await.unwrap());
            self.done().await;
            assert!(self.real.shards.claim(shard, seen, generation, token).await.unwrap());
        }
    }

    async fn drop_scope(&mut self, shard: u32, generation: Generation, token: Token, gone: Scope) {
        self.begin(1);
        assert!(self.plain.shards.drop_scopes(shard, generation, token, &[gone]).await.unwrap());
        self.done().await;
        assert!(self.real.shards.drop_scopes(shard, generation, token, &[gone]).await.unwrap());
    }
}

/// Runs, crashes many times, and checks what is found each time. Answers how many crashes there were, and on how many
/// of them something was lost that had been begun.
async fn run_with_crashes(seed: u64, rounds: u64) -> (usize, usize) {
    let run = Arc::new(Run::default());
    let platter = disk(Vec::new(), run.clone(), seed, 0);
    let (source, view) = (SourceId::new(), ViewId::new());
    let scopes: BTreeSet<_> = [1, 2, 3].map(|epoch| Scope { view, epoch }).into();
    let (redb, store) = (open(&platter).unwrap(), MemoryStore::new());
    // A new file takes its place only when it is whole, so there is nothing to crash before this.
    platter.0.lock().unwrap().often = 4;
    let real = redb.source(source).await.unwrap();
    let plain = store.source(source).await.unwrap();
    let mut steps = Steps { source, real, plain, store, scopes, run: run.clone(), after: Vec::new() };
    steps.done().await;

    let mut dice = Dice(seed + 1);
    let views = BTreeMap::from([(view, OffsetVector::zero())]);
    let mut ledger =
        Ledger::begin("crash", "engine", LogId("log".into()), SHARDS, &views, OffsetVector::zero(), 0);
    steps.write(None, &ledger.clone(), TxnChanges::default(), Durability::Now).await;
    steps.claim(None, ledger.generation, ledger.token).await;
    for round in 0..rounds {
        if round % 10 == 9 {
            let next = ledger.take_over(0);
            steps.write(Some(&ledger), &next, TxnChanges::default(), Durability::Now).await;
            steps.claim(Some((ledger.generation, ledger.token)), next.generation, next.token).await;
            ledger = next;
        }
        let range = OffsetRange { from: round * 7, to: round * 7 + 7, records: 7 };
        let (next, txn) = ledger.append(BTreeMap::from([(0, range)])).unwrap();
        let changes = TxnChanges {
            append: Some(txn.clone()),
            forget_below: round.saturating_sub(9),
            ..TxnChanges::default()
        };
        steps.write(Some(&ledger), &next, changes, Durability::Later).await;
        ledger = next;

        let scope = Scope { view, epoch: 1 + (round / 20) as u32 };
        let mut commits = Vec::new();
        for shard in 0..SHARDS {
            let keys: BTreeSet<_> = (0..dice.below(40)).map(|_| format!("[{}]", dice.below(300))).collect();
            let keys: Vec<_> = keys.into_iter().collect();
            let before = steps.plain.shards.get(shard, scope, &keys).await.unwrap();
            let after = |key: &String| format!("{key} at {round}, {}", "x".repeat(key.len() * 20));
            let change = |(key, before): (String, Option<String>)| {
                let after = after(&key);
                Change { scope, key, before, after }
            };
            let changes = keys.into_iter().zip(before).map(change).collect();
            let (generation, token, attempt) = (ledger.generation, ledger.token, txn.attempt);
            commits.push(ShardCommit { shard, generation, token, txid: txn.txid, attempt, changes });
        }
        steps.commit(commits.try_into().unwrap()).await;
        let next = ledger.commit(&txn, &BTreeMap::new()).unwrap();
        steps.write(Some(&ledger), &next, TxnChanges::default(), Durability::Now).await;
        ledger = next;
        if round % 20 == 5 && round > 20 {
            let gone = Scope { view, epoch: (round / 20) as u32 };
            steps.drop_scope(dice.below(SHARDS), ledger.generation, ledger.token, gone).await;
        }
    }

    let last = steps.after.len() - 1;
    assert_eq!(all_of(&redb, source, &steps.scopes).await, steps.after[last]);
    let Steps { scopes, after, real, .. } = steps;
    drop((redb, real));
    let ended = platter.0.lock().unwrap().flushed.clone();
    let after_end = open(&disk(ended, run.clone(), 0, 0)).unwrap();
    assert_eq!(all_of(&after_end, source, &scopes).await, after[last], "an ordinary end loses nothing");

    let images = std::mem::take(&mut platter.0.lock().unwrap().images);
    let (crashes, mut lossy) = (images.len(), 0);
    for (image, flushed, begun) in images {
        let again = disk(image, run.clone(), 0, 0);
        let found = open(&again).unwrap();
        let held = all_of(&found, source, &scopes).await;
        let at = (flushed..=begun.min(last)).find(|step| after[*step] == held);
        let at = at.unwrap_or_else(|| panic!("found none of the steps {flushed} to {begun}: {held}"));
        lossy += usize::from(at < begun);
        resumes(found, &again, source).await;
    }
    (crashes, lossy)
}

/// A store that was found after a crash is one to work with.
async fn resumes(found: RedbStore, disk: &Disk, source: SourceId) {
    let state = found.source(source).await.unwrap();
    let (generation, token, attempt) = (Generation::new(), Token::after(99), Attempt::new());
    let seen = state.shards.meta(0).await.unwrap().map(|(meta, _)| (meta.generation, meta.token));
    assert!(state.shards.claim(0, seen, generation, token).await.unwrap());
    let scope = Scope { view: ViewId::new(), epoch: 1 };
    let change = Change { scope, key: "k".into(), before: None, after: "s".into() };
    let commit = ShardCommit { shard: 0, generation, token, txid: 1, attempt, changes: vec![change] };
    assert_eq!(state.shards.commit(&commit).await.unwrap(), Ok(Verdict::Apply));
    drop((state, found));
    let found = open(disk).unwrap();
    let state = found.source(source).await.unwrap();
    assert_eq!(state.shards.get(0, scope, &["k".into()]).await.unwrap(), [Some("s".into())]);
}

#[tokio::test]
async fn a_crash_loses_only_a_suffix_and_never_what_was_flushed() {
    let (mut crashes, mut lossy) = (0, 0);
    for seed in 0..4 {
        let (here, lost) = run_with_crashes(seed * 1_000, 50).await;
        crashes += here;
        lossy += lost;
    }
    // Else the disk was too kind for the test to mean anything.
    assert!(crashes > 60 && lossy > 30, "{crashes} crashes, {lossy} with losses");
}
