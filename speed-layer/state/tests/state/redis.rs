//! The Redis store on real servers, and through a network that does harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stratus_seam::ids::{Attempt, Generation, ShardNo, SourceId, Token, ViewId};
use stratus_seam::shard::{Change, Refusal, Scope, ShardCommit, Verdict, judge};
use stratus_seam::store::{SourceState, StateStore, StoreError};
use stratus_servers::proxy::{Harm, Proxy, Way};
use stratus_servers::redis::Redis;
use stratus_state::conformance;
use stratus_state::redis::{RedisStore, Rights};

use crate::client::Client;

/// The owner of one shard.
struct Owner {
    state: SourceState,
    shard: ShardNo,
    generation: Generation,
    token: Token,
    txid: u64,
    scope: Scope,
    held: HashMap<String, String>,
}

impl Owner {
    async fn of(store: &dyn StateStore, source: SourceId) -> Self {
        let state = store.source(source).await.unwrap();
        let (generation, token) = (Generation::new(), Token::after(0));
        assert!(state.shards.claim(0, None, generation, token).await.unwrap());
        let scope = Scope { view: ViewId::new(), epoch: 1 };
        Self { state, shard: 0, generation, token, txid: 0, scope, held: HashMap::new() }
    }

    fn next<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> ShardCommit {
        let txid = self.txid + 1;
        let change = |key: &'a str| Change {
            scope: self.scope,
            key: key.into(),
            before: self.held.get(key).cloned(),
            after: format!("[{txid}]"),
        };
        let changes = keys.into_iter().map(change).collect();
        let Self { shard, generation, token, .. } = *self;
        ShardCommit { shard, generation, token, txid, attempt: Attempt::new(), changes }
    }

    fn note(&mut self, commit: &ShardCommit) {
        self.txid = commit.txid;
        self.held.extend(commit.changes.iter().map(|change| (change.key.clone(), change.after.clone())));
    }

    async fn commit<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) {
        let commit = self.next(keys);
        assert_eq!(self.state.shards.commit(&commit).await.unwrap(), Ok(Verdict::Apply));
        self.note(&commit);
    }

    /// Uses every connection, so that those that ended are replaced.
    async fn reconnect(&self) {
        for _ in 0..4 {
            for _ in 0..2 {
                let _ended = self.state.shards.meta(self.shard).await;
            }
            for _ in 0..2 {
                let _ended = self.state.shards.page(self.shard, self.scope, None, 1).await;
            }
        }
    }

    /// The shard holds just what was noted.
    async fn check(&self) {
        let (meta, found) = self.state.shards.meta(self.shard).await.unwrap().unwrap();
        assert_eq!((meta.txid, meta.rows.get(&self.scope)), (self.txid, found.get(&self.scope)));
        let (mut after, mut rows) = (None, HashMap::new());
        loop {
            let page = self.state.shards.page(self.shard, self.scope, after.as_deref(), 500).await.unwrap();
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(rows, self.held);
    }
}

async fn open(server: &Redis) -> RedisStore {
    RedisStore::open(server.url()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_promises() {
    let Some(server) = Redis::shared().unwrap() else { return };
    let store = stratus_state::open("redis", server.url()).await.unwrap();
    conformance::run_all(|| async { store.clone() }).await;
}

#[tokio::test]
async fn large_commits_find_and_evicted_keys() {
    let Some(server) = Redis::shared().unwrap() else { return };
    let store = open(&server).await;
    let source = SourceId::new();
    let mut owner = Owner::of(&store, source).await;
    let keys: Vec<String> = (0..20_000).map(|i| format!("[{i}]")).collect();
    for part in [0..20_000, 5..20_000, 19_999..20_000, 0..0] {
        owner.commit(keys[part].iter().map(String::as_str)).await;
        owner.check().await;
    }
    let shards = store.source(source).await.unwrap().shards;
    let asked: Vec<String> = ["[7]", "nobody", "[3]"].map(String::from).to_vec();
    let page = shards.find(0, owner.scope, &asked).await.unwrap();
    assert_eq!(page.rows, [("[7]".into(), "[2]".into()), ("[3]".into(), "[1]".into())]);
    assert_eq!((page.next, page.stand.map(|stand| stand.txid)), (None, Some(4)));
    assert_eq!(shards.find(1, owner.scope, &asked).await.unwrap().stand, None);

    let namespace = server.namespace();
    let hash = format!("{{{namespace}:{source}:0}}:v:{}:1", owner.scope.view);
    assert_eq!(server.cli(&["HDEL", &hash, "[7]"]).unwrap(), "1");
    let (meta, found) = owner.state.shards.meta(0).await.unwrap().unwrap();
    assert_eq!((meta.rows[&owner.scope], found[&owner.scope]), (20_000, 19_999));
    let tail = owner.state.shards.tail(0, 4, &[owner.scope]).await.unwrap().unwrap();
    assert_eq!(tail.found[&owner.scope], 19_999);
    let error = owner.state.shards.commit(&owner.next(["[8]", "[7]"])).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged(text) if text.contains("keys were lost")), "{error}");
    let page = owner.state.shards.find(0, owner.scope, &["[8]".to_owned()]).await.unwrap();
    assert_eq!((page.rows.len(), page.missing), (1, 1));
    assert_eq!(owner.state.shards.page(0, owner.scope, None, 1).await.unwrap().missing, 1);
    let (now, _) = owner.state.shards.meta(0).await.unwrap().unwrap();
    assert_eq!(now, meta, "nothing was written");

    server.cli(&["SET", &format!("{{{namespace}:{source}:1}}:meta"), "x"]).unwrap();
    assert!(matches!(owner.state.shards.meta(1).await, Err(StoreError::Damaged(_))));
    store.forget(source).await.unwrap();
    let left = server.cli(&["KEYS", &format!("{{{namespace}*")]).unwrap();
    // Kept where the server writes an append-only file.
    assert_eq!(left.replace(&format!("{{{namespace}}}:whole"), ""), "");
}

/// The function in the server and the seam's decision say the same of the same facts.
#[tokio::test]
async fn the_server_judges_as_the_seam_does() {
    let Some(server) = Redis::shared().unwrap() else { return };
    let store = open(&server).await;
    let (generations, tokens) = ([Generation::new(), Generation::new()], [Token::after(3), Token::after(3)]);
    let attempts = [Attempt::new(), Attempt::new()];
    let (mut applied, mut refused) = (0, 0);
    for case in 0..96u64 {
        let source = SourceId::new();
        let state = store.source(source).await.unwrap();
        let mut owner = Owner::of(&store, source).await;
        let same = |bit: u64| usize::from(case & bit != 0);
        // 9,007,199,254,740,993 is the first number that a double does not hold.
        let has = if case & 32 != 0 { 9_007_199_254_740_992 } else { 5 };
        let key = format!("{{{}:{source}:0}}:meta", server.namespace());
        let (generation, token) = (generations[0].to_string(), tokens[0].to_string());
        let (txid, attempt) = (has.to_string(), attempts[0].to_string());
        let fields = ["generation", &generation, "token", &token, "txid", &txid, "attempt", &attempt];
        server.cli(&[&["HSET", &key], &fields[..]].concat()).unwrap();
        (owner.generation, owner.token) = (generations[same(1)], tokens[same(2)]);
        owner.txid = has + (case / 8) % 4 - 2;
        let commit = ShardCommit { attempt: attempts[same(4)], ..owner.next(["a"]) };
        let (meta, _) = state.shards.meta(0).await.unwrap().unwrap();
        let said = state.shards.commit(&commit).await.unwrap();
        assert_eq!(said, judge(Some(&meta), &commit), "case {case}");
        let (now, _) = state.shards.meta(0).await.unwrap().unwrap();
        if said == Ok(Verdict::Apply) {
            applied += 1;
            assert_eq!((now.txid, now.attempt), (commit.txid, Some(commit.attempt)));
        } else {
            refused += u32::from(said.is_err());
            assert_eq!(now, meta);
        }
    }
    assert!(applied > 2 && refused > 40, "{applied} {refused}");
}

#[tokio::test]
async fn a_flushed_server_is_empty_and_gets_the_functions_again() {
    let Some(server) = Redis::start(&[]).unwrap() else { return };
    let store = open(&server).await;
    let mut owner = Owner::of(&store, SourceId::new()).await;
    owner.commit(["a"]).await;
    server.cli(&["FUNCTION", "FLUSH"]).unwrap();
    owner.commit(["a", "b"]).await;
    owner.check().await;
    server.cli(&["FLUSHALL"]).unwrap();
    let shards = &owner.state.shards;
    assert_eq!(shards.meta(0).await.unwrap(), None);
    assert_eq!(shards.page(0, owner.scope, None, 9).await.unwrap(), Default::default());
    assert_eq!(shards.tail(0, 0, &[owner.scope]).await.unwrap(), None);
    let refused = shards.commit(&owner.next(["a"])).await.unwrap();
    assert!(matches!(refused, Err(Refusal::Generation { has: None, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused() {
    let Some(server) = Redis::start(&["--maxmemory-policy", "allkeys-lru"]).unwrap() else { return };
    let error = RedisStore::open(server.url()).await.unwrap_err().to_string();
    assert!(error.contains("allkeys-lru") && error.contains("noeviction"), "{error}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    let store = open(&server).await;
    let facts = store.examine().await.unwrap();
    assert_eq!((facts.refusal(), facts.appendonly, facts.role.as_str()), (None, Some(true), "master"));
    let owner = Owner::of(&store, SourceId::new()).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let error = owner.state.shards.commit(&owner.next(["a"])).await.unwrap_err();
    let StoreError::Unavailable { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("maxmemory"), "{error}");
    assert_eq!(owner.state.shards.meta(0).await.unwrap().unwrap().0.txid, 0);
    assert!(owner.state.shards.drop_scopes(0, owner.generation, owner.token, &[owner.scope]).await.unwrap());
}

/// The rights of docs/redis.md are enough.
#[tokio::test]
async fn a_user_with_few_rights_is_enough_and_secrets_stay_secret() {
    let Some(server) = Redis::start(&[]).unwrap() else { return };
    let doc = include_str!("../../../../docs/redis.md");
    let rule = doc.lines().find_map(|line| line.strip_prefix("ACL SETUSER stratus ")).unwrap();
    let rule = rule.replace("<password>", "s3cret");
    let words = [&["ACL", "SETUSER", "stratus"], &rule.split(' ').collect::<Vec<_>>()[..]].concat();
    server.cli(&words).unwrap();
    let url = |password: &str| format!("redis://stratus:{password}@127.0.0.1:{}", server.port());
    let store: Arc<dyn StateStore> = Arc::new(RedisStore::open(&url("s3cret")).await.unwrap());
    conformance::run_all(|| async { store.clone() }).await;
    assert!(!format!("{store:?}").contains("s3cret"));
    let examined = RedisStore::open(&url("s3cret")).await.unwrap();
    assert!(matches!(examined.rights().await.unwrap(), Rights::Untold(_)));
    let user = ["ACL", "SETUSER", "stratus"];
    server.cli(&[&user[..], &["+acl|whoami", "+acl|dryrun"]].concat()).unwrap();
    assert_eq!(examined.rights().await.unwrap(), Rights::Enough, "docs/redis.md lists them all");
    server.cli(&[&user[..], &["-hincrby"]].concat()).unwrap();
    let Rights::Missing(said) = examined.rights().await.unwrap() else { panic!() };
    assert!(said.len() == 1 && said[0].contains("hincrby"), "{said:?}");
    server.cli(&[&user[..], &["+hincrby", "resetkeys", "~{stratus:*"]].concat()).unwrap();
    let Rights::Missing(said) = examined.rights().await.unwrap() else { panic!() };
    assert!(said.len() == 1 && said[0].contains("{stratus}:whole"), "{said:?}");
    let error = RedisStore::open(&url("wr0ng")).await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(told.contains("password") && !told.contains("wr0ng"), "{told}");
    let other = format!("{}?namespace=other", url("s3cret"));
    let error = RedisStore::open(&other).await.unwrap_err();
    assert!(format!("{error:?}").contains("docs/redis.md"), "{error:?}");
}

/// A server with a certificate of a small authority of our own: trusted if the address names it, refused otherwise.
#[tokio::test]
async fn a_certificate_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |words: &str| {
        std::process::Command::new("openssl").args(words.split(' ')).current_dir(folder.path()).output()
    };
    if openssl("version").is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "openssl is needed");
        eprintln!("warning: there is no openssl on this machine: THIS TEST IS LEFT OUT");
        return;
    }
    let new = "req -x509 -newkey rsa:2048 -nodes -days 2";
    for words in [
        format!("{new} -subj /CN=authority -keyout ca.key -out ca.pem"),
        format!(
            "{new} -subj /CN=server -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key -keyout key.pem -out cert.pem"
        ),
    ] {
        let ran = openssl(&words).unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let port = stratus_servers::free_port().unwrap().to_string();
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let mut args = vec!["--tls-port", &port, "--tls-ca-cert-file", &ca, "--tls-cert-file", &cert];
    args.extend(["--tls-key-file", &key, "--tls-auth-clients", "no"]);
    let Some(_server) = Redis::start(&args).unwrap() else { return };
    let url = format!("rediss://127.0.0.1:{port}");
    let store = RedisStore::open(&format!("{url}?cafile={ca}")).await.unwrap();
    let mut owner = Owner::of(&store, SourceId::new()).await;
    owner.commit(["a"]).await;
    owner.check().await;
    let error = format!("{:?}", RedisStore::open(&url).await.unwrap_err());
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}

/// Each call takes effect once or not at all, whatever the network does, and reading tells which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_through_a_harmful_network_take_effect_once() {
    let Some(server) = Redis::start(&[]).unwrap() else { return };
    let proxy = Proxy::start(server.port()).unwrap();
    let url = format!("redis://127.0.0.1:{}?timeout_ms=1000", proxy.port());
    let store = RedisStore::open(&url).await.unwrap();
    let mut owner = Owner::of(&store, SourceId::new()).await;
    let client = Client { state: owner.state.clone() };
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    proxy.harm(move |way, _| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match seed >> 58 {
            0 | 1 => Harm::Cut,
            2 | 3 if way == Way::Back => Harm::Mute,
            4 => Harm::Delay(Duration::from_millis(1_300)),
            5 | 6 => Harm::Delay(Duration::from_millis(5)),
            _ => Harm::None,
        }
    });
    let mut lost = 0;
    for turn in 0..120 {
        let keys = [format!("[{}]", turn % 7), format!("[{}]", turn % 11 + 20)];
        let commit = owner.next(keys.iter().map(String::as_str));
        let (verdict, answer_lost) = client.commit(&commit).await;
        verdict.unwrap();
        lost += u32::from(answer_lost);
        owner.note(&commit);
    }
    proxy.harm(|_, _| Harm::None);
    assert!(lost > 3, "{lost}");
    let direct = open(&server).await;
    assert!(format!("{direct:?}").contains("127.0.0.1"));
    // The old connections may be muted still.
    client.read(|| owner.state.shards.meta(0)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    owner.reconnect().await;
    owner.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_answers_late_and_truthfully() {
    let Some(server) = Redis::start(&[]).unwrap() else { return };
    let store = RedisStore::open(&format!("{}?timeout_ms=2000", server.url())).await.unwrap();
    let mut owner = Owner::of(&store, SourceId::new()).await;
    owner.commit(["a"]).await;
    let commit = owner.next(["a", "b"]);
    server.pause().unwrap();
    let error = owner.state.shards.commit(&commit).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    server.resume().unwrap();
    let verdict = Client { state: owner.state.clone() }.commit(&commit).await.0.unwrap();
    assert!(matches!(verdict, Verdict::Held | Verdict::Apply));
    owner.note(&commit);
    owner.check().await;
}

/// A file cut off anywhere brings back a whole earlier state, the store goes on from there, and nothing of what was
/// cut off comes back at a later start.
#[tokio::test]
async fn a_file_cut_short_is_an_earlier_whole_state() {
    let Some(mut server) = Redis::start(&["--appendfsync", "always", "--aof-load-truncated", "yes"]).unwrap()
    else {
        return;
    };
    let store = open(&server).await;
    let mut owner = Owner::of(&store, SourceId::new()).await;
    for cut in [37, 300, 900] {
        settled(&server).await;
        let before = owner.txid;
        for _ in 0..6 {
            owner.commit(["a", "b", "c"]).await;
        }
        server.kill().unwrap();
        let folder = std::fs::read_dir(server.folder().unwrap().join("appendonlydir")).unwrap();
        let files = folder.map(|entry| entry.unwrap().path());
        let file = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
        let len = file.metadata().unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len - cut).unwrap();
        server.restart().unwrap();
        let client = Client { state: owner.state.clone() };
        let (meta, found) = client.read(|| owner.state.shards.meta(0)).await.unwrap();
        assert!((before..before + 6).contains(&meta.txid), "{} after {before}", meta.txid);
        assert_eq!((meta.rows[&owner.scope], found[&owner.scope]), (3, 3));
        let late = ShardCommit { txid: meta.txid + 2, ..owner.next(["a"]) };
        assert!(matches!(client.commit(&late).await.0, Err(Refusal::Order { .. })));
        owner.txid = meta.txid;
        owner.held.values_mut().for_each(|state| *state = format!("[{}]", meta.txid));
        let commit = owner.next(["c"]);
        client.commit(&commit).await.0.unwrap();
        owner.note(&commit);
        settled(&server).await;
        server.kill().unwrap();
        server.restart().unwrap();
        owner.reconnect().await;
        owner.check().await;
        let commit = owner.next(["a", "b", "c"]);
        client.commit(&commit).await.0.unwrap();
        owner.note(&commit);
    }
}

/// Others may write to the server between its start with a torn file and our first look, and so bring back the
/// beginning of a commit. Every beginning of one is nobody's shard, and doubtful to whoever takes it over.
#[tokio::test]
async fn the_beginning_of_a_commit_is_nobodys() {
    let Some(server) = Redis::start(&["--appendfsync", "always"]).unwrap() else { return };
    let store = open(&server).await;
    let mut owner = Owner::of(&store, SourceId::new()).await;
    owner.commit(["a", "b"]).await;
    settled(&server).await;
    let attempt = owner.next([]).attempt;
    owner.commit(["a"]).await;
    let folder = std::fs::read_dir(server.folder().unwrap().join("appendonlydir")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let file = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
    let commands: Vec<&str> = text.rsplit("MULTI").next().unwrap().split("\r\n*").collect();
    let (first, last) = (commands[1], commands[commands.len() - 2]);
    let nobody = format!("{}-{}", owner.token.counter, "0".repeat(32));
    assert!(first.contains(":meta") && first.contains(&nobody) && first.contains("attempt"), "{first}");
    assert!(last.contains("txid") && last.contains(&owner.token.to_string()), "{last}");

    // What it is like when the file ends behind the first write.
    let keys = server.cli(&["--raw", "KEYS", "*:meta"]).unwrap();
    let key = keys.lines().find(|key| key.contains(":0}")).unwrap_or(keys.trim());
    server.cli(&["HSET", key, "token", &nobody, "attempt", &attempt.to_string()]).unwrap();
    let page = owner.state.shards.page(0, owner.scope, None, 10).await.unwrap();
    assert_ne!(page.stand.unwrap().token, owner.token);
    let found = owner.state.shards.commit(&owner.next(["a"])).await.unwrap();
    assert!(matches!(found, Err(Refusal::Token { .. })), "{found:?}");
    let (meta, _) = owner.state.shards.meta(0).await.unwrap().unwrap();
    assert_eq!((meta.txid, meta.attempt), (2, Some(attempt)));
    let generation = Generation::new();
    let seen = Some((meta.generation, meta.token));
    assert!(owner.state.shards.claim(0, seen, generation, Token::after(9)).await.unwrap());
}

/// Waits until the server has written its file anew.
async fn settled(server: &Redis) {
    while !server.cli(&["INFO", "persistence"]).unwrap().contains("aof_rewrite_in_progress:0") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_replica_is_not_read_and_can_take_over() {
    let Some(server) = Redis::start(&[]).unwrap() else { return };
    let store = open(&server).await;
    let source = SourceId::new();
    let mut owner = Owner::of(&store, source).await;
    owner.commit(["a", "b"]).await;
    let replica = server.replica().unwrap();
    replica.until_caught_up(&server).unwrap();
    let error = RedisStore::open(replica.url()).await.unwrap_err().to_string();
    assert!(error.contains("master"), "{error}");
    replica.promote().unwrap();
    let taken = open(&replica).await;
    owner.state = taken.source(source).await.unwrap();
    owner.check().await;
    owner.commit(["b", "c"]).await;
    owner.check().await;
    // A master that was demoted under an open connection does not pass for one.
    replica.cli(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]).unwrap();
    let error = owner.state.shards.meta(0).await.unwrap_err();
    assert!(format!("{error:?}").contains("replica"), "{error:?}");
}
