//! A client that asks all the time and believes nothing: no answer may exceed what was sent, none may go back,
//! and each has to be its batch part and its speed part together.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use tokio::sync::watch;

use super::display::{Display, grouped};
use super::producer::Sent;
use crate::client::{Session, Table};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long answers may fail to come, for reasons that pass.
const PATIENCE: Duration = Duration::from_secs(30);

/// All three names in one statement, so that they are read at the same moment.
const QUESTION: &str = "SELECT 'merged' AS layer, sum(views) AS views FROM campaign_views \
    UNION ALL SELECT 'batch', sum(views) FROM campaign_views_batch \
    UNION ALL SELECT 'speed', sum(views) FROM campaign_views_speed";

/// The newest answer, and what all of them were like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) merged: u64,
    pub(crate) batch: u64,
    pub(crate) speed: u64,
    /// The version that the batch part is from.
    pub(crate) version: u32,
    /// How long ago everything in the answer had been sent.
    pub(crate) behind: Duration,
    /// How many answers there have been.
    pub(crate) answers: u64,
    /// The most that an answer was behind.
    pub(crate) most_behind: Duration,
    /// From the watcher's begin to the first answer that counted anything.
    pub(crate) first: Option<Duration>,
    /// How many times a statement had to be asked again.
    pub(crate) again: u64,
}

/// Asks until it is dropped. It comes to an end only with an error: a wrong answer, or none.
pub(crate) async fn watch(
    server: SocketAddr,
    sent: &Sent,
    display: &Display,
    tell: &watch::Sender<Seen>,
) -> anyhow::Error {
    match ask_on(server, sent, display, tell).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn ask_on(
    server: SocketAddr,
    sent: &Sent,
    display: &Display,
    tell: &watch::Sender<Seen>,
) -> anyhow::Result<std::convert::Infallible> {
    let session = Session::at(server).await?;
    let began = Instant::now();
    let mut history = History::default();
    let mut seen = Seen::default();
    let mut answered = Instant::now();
    loop {
        history.push(Instant::now(), sent.views());
        match session.rows(QUESTION).await {
            Ok(table) => {
                // Read after the answer: what is in it had been sent by now.
                let (merged, batch, speed) = layers(&table)?;
                judge(seen.merged, (merged, batch, speed), sent.views_begun()).map_err(|why| anyhow!(why))?;
                sent.see(merged);
                (seen.merged, seen.batch, seen.speed) = (merged, batch, speed);
                seen.behind = history.behind(Instant::now(), merged);
                seen.most_behind = seen.most_behind.max(seen.behind);
                seen.answers += 1;
                if merged > 0 {
                    seen.first.get_or_insert(began.elapsed());
                }
                seen.version = version(&session).await?;
                answered = Instant::now();
            }
            // Overtaken too often, or speed state that is being rebuilt: no answer is not a wrong answer.
            Err(fault) if matches!(fault.sqlstate(), "72000" | "57P03") && answered.elapsed() < PATIENCE => {
                seen.again += 1;
            }
            Err(fault) => bail!("the question was not answered: {fault}"),
        }
        tell.send_replace(seen.clone());
        display.progress(sent.lines(), &seen)?;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn version(session: &Session) -> anyhow::Result<u32> {
    let table = session.rows("SELECT max(version) FROM stratus.answer WHERE view = 'campaign_views'").await?;
    Ok(table.first(0).unwrap_or_default().parse()?)
}

fn layers(table: &Table) -> anyhow::Result<(u64, u64, u64)> {
    let views = |layer: &str| {
        let row =
            table.rows().iter().find(|row| row.first().is_some_and(|name| name.as_deref() == Some(layer)));
        let row = row.ok_or_else(|| anyhow!("the answer has no row for {layer}"))?;
        // The sum of no rows is NULL.
        let text = row.get(1).and_then(Option::as_deref).unwrap_or("0");
        text.parse().map_err(|_| anyhow!("the sum of {layer} is {text}"))
    };
    Ok((views("merged")?, views("batch")?, views("speed")?))
}

/// Whether an answer can be right.
fn judge(before: u64, (merged, batch, speed): (u64, u64, u64), begun: u64) -> Result<(), String> {
    let merged_views = grouped(merged);
    if merged > begun {
        return Err(format!("an answer counted {merged_views} views when {} had been sent", grouped(begun)));
    }
    if merged < before {
        return Err(format!(
            "an answer counted {merged_views} views after one that counted {}",
            grouped(before)
        ));
    }
    if batch + speed != merged {
        let (batch, speed) = (grouped(batch), grouped(speed));
        return Err(format!("an answer counted {merged_views} views, its layers {batch} and {speed}"));
    }
    Ok(())
}

/// What had been sent, and when, as far as the answers have not caught up with it.
#[derive(Debug, Default)]
struct History(VecDeque<(Instant, u64)>);

impl History {
    fn push(&mut self, at: Instant, views: u64) {
        if self.0.back().is_none_or(|(_, last)| *last < views) {
            self.0.push_back((at, views));
        }
    }

    /// How long the oldest thing that an answer does not count had been sent before.
    fn behind(&mut self, now: Instant, counted: u64) -> Duration {
        while self.0.front().is_some_and(|(_, views)| *views <= counted) {
            self.0.pop_front();
        }
        self.0.front().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_are_noticed() {
        assert_eq!(judge(5, (7, 4, 3), 9), Ok(()));
        assert_eq!(judge(7, (7, 7, 0), 7), Ok(()));
        assert!(judge(5, (10, 7, 3), 9).is_err());
        assert!(judge(8, (7, 4, 3), 9).is_err());
        assert!(judge(5, (7, 4, 4), 9).is_err());
    }

    #[test]
    fn behind_is_the_age_of_what_is_missing() {
        let mut history = History::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        history.push(at(0), 10);
        history.push(at(100), 10);
        history.push(at(200), 20);
        assert_eq!(history.behind(at(300), 5), Duration::from_millis(300));
        assert_eq!(history.behind(at(300), 10), Duration::from_millis(100));
        assert_eq!(history.behind(at(300), 20), Duration::ZERO);
    }
}
