//! Words from Kafka are counted in Redis by processes that are killed, for each pair of a spout and a state that is
//! exactly once together, with a cache and without. Redis and Kafka are paused, killed and started again while they work,
//! and for the opaque spout Kafka loses records that nobody has counted yet. After every kill the state is held against
//! what it must be at that moment, key by key (`oracle`), and at the end the counts are exact.
//!
//! A soak: `EXACTLY_ONCE_KILLS=2000 cargo test -p stratus-connectors exactly_once -- --nocapture`. It prints its seed,
//! and `EXACTLY_ONCE_SEED` takes one.

mod child;
mod oracle;
mod pair;

use std::time::Duration;

use stratus_servers::kafka::Kafka;

use self::{oracle::Counts, pair::Pair};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which spout, which state, how many keys of each task are cached.
const PAIRS: [(&str, &str, &str, u64); 5] = [
    ("transactional-transactional", "transactional", "transactional", 0),
    ("transactional-transactional-cached", "transactional", "transactional", 50),
    ("transactional-opaque", "transactional", "opaque", 50),
    ("opaque-opaque", "opaque", "opaque", 0),
    ("opaque-opaque-cached", "opaque", "opaque", 50),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What happens in a life, besides its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    RedisKill,
    RedisPause,
    KafkaPause,
    KafkaKill,
}

impl Harm {
    /// Each comes up within twenty lives, however chance would have it.
    fn of(life: u64) -> Self {
        match (life % 20, life % 6) {
            (10, _) => Self::KafkaKill,
            (_, 1) => Self::RedisKill,
            (_, 3) => Self::RedisPause,
            (_, 5) => Self::KafkaPause,
            _ => Self::None,
        }
    }

    /// Does it to all pairs; and all of them go on, in the life that they have.
    fn befall(self, kafka: &mut Kafka, pairs: &mut [Pair], random: &mut fastrand::Rng) {
        if self == Self::None {
            return;
        }
        let mut committed = vec![0; pairs.len()];
        if self == Self::KafkaKill {
            // A broker that is killed may bring back records that it has deleted: it writes down once in a minute where
            // its partitions begin. Nobody must want them.
            pairs.iter_mut().for_each(Pair::until_past_what_is_lost);
        }
        for (pair, committed) in pairs.iter_mut().zip(&mut committed) {
            pair.send(kafka, random, 150);
            std::thread::sleep(Duration::from_millis(random.u64(0..30)));
            if matches!(self, Self::RedisKill | Self::RedisPause) {
                *committed = pair.harm(self == Self::RedisKill, random);
            }
        }
        if matches!(self, Self::KafkaKill | Self::KafkaPause) {
            if self == Self::KafkaKill {
                kafka.kill().unwrap();
                kafka.restart().unwrap();
            } else {
                kafka.pause().unwrap();
                std::thread::sleep(Duration::from_millis(random.u64(100..900)));
                kafka.resume().unwrap();
            }
            for (pair, committed) in pairs.iter().zip(&mut committed) {
                *committed = pair.ledger().map_or(0, |ledger| ledger.committed);
            }
        }
        for (pair, committed) in pairs.iter_mut().zip(committed) {
            pair.send(kafka, random, 10);
            pair.until_beyond(committed);
        }
    }
}

/// The end of a life, and what happens until the next one.
fn end_and_begin(kafka: &Kafka, pair: &mut Pair, random: &mut fastrand::Rng) {
    pair.kill();
    if pair.name.starts_with("opaque") && random.bool() {
        pair.lose(kafka, random);
    }
    pair.start();
}

#[test]
fn words_are_exact_after_twenty_kills_of_every_pair() {
    let Some(mut kafka) = Kafka::start().unwrap() else { return };
    let seed = number("EXACTLY_ONCE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("EXACTLY_ONCE_KILLS").unwrap_or(20);
    println!("EXACTLY_ONCE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pairs = Vec::new();
    for (name, spout, state, cached) in PAIRS {
        let Some(pair) = Pair::new(&kafka, name, spout, state, cached) else { return };
        pairs.push(pair);
    }
    pairs.iter_mut().for_each(Pair::start);
    for life in 0..kills {
        for pair in &mut pairs {
            pair.send(&kafka, &mut random, 60);
        }
        pairs.iter_mut().for_each(Pair::until_progress);
        Harm::of(life).befall(&mut kafka, &mut pairs, &mut random);
        for pair in &mut pairs {
            // Slow lives end in the midst of a batch: there is more to do than can be done at once.
            pair.send(&kafka, &mut random, if pair.slow { 200 } else { 60 });
            if pair.slow {
                pair.until_at_work();
            } else {
                std::thread::sleep(Duration::from_millis(random.u64(0..20)));
            }
            end_and_begin(&kafka, pair, &mut random);
            // Some lives end before they have begun to work, or just then.
            if random.u32(0..4) == 0 {
                std::thread::sleep(Duration::from_millis(random.u64(0..400)));
                end_and_begin(&kafka, pair, &mut random);
            }
        }
    }
    for pair in &mut pairs {
        pair.send(&kafka, &mut random, 10);
        pair.until_done();
    }
    // And so it stays.
    std::thread::sleep(Duration::from_millis(500));
    pairs.iter_mut().for_each(|pair| is_exact(&kafka, pair, kills as u32));
}

/// What is stored at the end, and that it was not easily had.
fn is_exact(kafka: &Kafka, pair: &mut Pair, kills: u32) {
    pair.is_all_sent(kafka);
    pair.kill();
    let counts: Counts = pair.values().into_iter().map(|(word, value)| (word, value.count)).collect();
    let (sent, counted) = (pair.oracle.words(), pair.oracle.settled());
    assert_eq!(counts, *counted, "{}", pair.name);
    let [words, lost] = [sent.values().sum(), sent.values().sum::<i64>() - counted.values().sum::<i64>()];
    let figures = &pair.figures;
    println!("{}: {words} words of which {lost} were lost by the log, {figures:?}", pair.name);
    assert!(figures.kills > kills && figures.redis_harmed_at_work > 0, "{}: {figures:?}", pair.name);
    // A handful of lives by hand need not have seen everything.
    if kills < 20 {
        return;
    }
    assert!(figures.redis_kills > 0 && figures.redis_pauses > 0, "{}: {figures:?}", pair.name);
    // Each life that was waited for, the last one too; those between may be over before they have begun.
    assert!(figures.lives_with_progress > kills, "{}: {figures:?}", pair.name);
    assert!(figures.kills_within_batches * 4 > figures.kills, "{}: {figures:?}", pair.name);
    assert!(figures.kills_within_a_commit > 0, "{}: {figures:?}", pair.name);
    if pair.name.starts_with("opaque") {
        assert!(lost > 0, "{}: {figures:?}", pair.name);
    } else {
        assert_eq!(counts, sent, "{}", pair.name);
    }
}
