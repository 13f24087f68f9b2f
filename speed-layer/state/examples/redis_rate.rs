//! How many groups a second the Redis store commits, beside plain HSET of the same pairs over one connection:
//! `cargo run --release --example redis_rate -- redis://127.0.0.1:6379`. Leaves its keys, to be looked at.

use std::time::Instant;

use stratus_seam::ids::{Attempt, Generation, SourceId, Token, ViewId};
use stratus_seam::shard::{Change, Scope, ShardCommit};
use stratus_seam::store::StateStore;
use stratus_state::redis::RedisStore;

const ROUNDS: u64 = 10;
const PAIRS: usize = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("give the address of a server")?;
    let store = RedisStore::open(&url).await?;
    println!("{:?}", store.examine().await?);
    let state = store.source(SourceId::new()).await?;
    let (generation, token) = (Generation::new(), Token::after(0));
    state.shards.claim(0, None, generation, token).await?;
    let scope = Scope { view: ViewId::new(), epoch: 1 };
    let state_of = |txid: u64, i: usize| format!("[{},{i}]", txid * 1000);
    let began = Instant::now();
    for txid in 1..=ROUNDS {
        let change = |i: usize| Change {
            scope,
            key: format!("[\"campaign-{i}\",1700000000]"),
            before: (txid > 1).then(|| state_of(txid - 1, i)),
            after: state_of(txid, i),
        };
        let changes = (0..PAIRS).map(change).collect();
        let commit = ShardCommit { shard: 0, generation, token, txid, attempt: Attempt::new(), changes };
        state.shards.commit(&commit).await??;
    }
    report("commits of 10,000 groups", began);

    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let began = Instant::now();
    for round in 1..=ROUNDS {
        for first in (0..PAIRS).step_by(1000) {
            let mut hset = redis::cmd("HSET");
            hset.arg("plain");
            for i in first..first + 1000 {
                hset.arg(format!("[\"campaign-{i}\",1700000000]")).arg(state_of(round, i));
            }
            hset.query_async::<()>(&mut connection).await?;
        }
    }
    report("plain HSET of 1,000 pairs", began);
    Ok(())
}

fn report(what: &str, began: Instant) {
    let groups = ROUNDS as f64 * PAIRS as f64;
    println!("{what}: {:.0} groups/s", groups / began.elapsed().as_secs_f64());
}
