//! What becomes of a task's reading when the topic changes under it: new partitions, records that are gone, partitions
//! that end earlier than they did, and a topic that was made anew.

use std::{sync::Arc, time::Duration};

use stratus_seam::log::LogId;
use stratus_topology::TaskError;
use tokio::task::JoinHandle;

use super::{Found, Past, ProcessingGuarantee, Reading, opening};

impl Reading {
    /// Goes on where the topic has records, if it does not have the next one.
    pub(super) async fn find_the_way(
        &mut self,
        number: usize,
        partition: u32,
        offset: u64,
    ) -> Result<(), TaskError> {
        let found = self.try_to_find_the_way(number, partition, offset).await;
        if found.is_err() {
            self.astray = Some((number, partition, offset));
        }
        found
    }

    async fn try_to_find_the_way(
        &mut self,
        number: usize,
        partition: u32,
        offset: u64,
    ) -> Result<(), TaskError> {
        let range = self.group.clone().range(partition).await?;
        if offset < range.start {
            let what = "records are gone before they were read, by retention or by hand; reading goes on behind them";
            self.warn_of_loss(partition, offset, range.start, what);
            self.reader.seek(partition, range.start)?;
            if let Some(slot) = self.slots.get(number) {
                slot.ledger.passed(range.start);
            }
        } else if offset > range.end {
            let to = match self.parts.config.guarantee {
                ProcessingGuarantee::AtMostOnce => range.end,
                _ => range.start,
            };
            let what = "the partition ends before the place where it was read; reading begins anew";
            tracing::warn!(topic = self.parts.config.topic, partition, offset, end = range.end, to, "{what}");
            // The group remembers a place that the partition may reach again: whoever began there later would skip
            // what lies between.
            self.committer.quiet(&mut self.slots, self.context.now()).await?;
            self.group.commit([(partition, self.note.at(to))].into()).await?;
            self.rereader.release(partition);
            self.slots.begin(partition, to)?;
            self.reader.seek(partition, to)?;
        }
        Ok(())
    }

    /// Failed records that the topic no longer has count as done.
    pub(super) fn give_up_outside(&mut self, number: usize, partition: u32, range: std::ops::Range<u64>) {
        let Some(slot) = self.slots.get(number) else { return };
        let beyond: Vec<u64> = slot.ledger.ready(self.context.now()).range(range.end..).copied().collect();
        let lost = slot.ledger.lost_below(range.start) + beyond.len();
        beyond.iter().for_each(|offset| slot.ledger.finish(*offset));
        if lost > 0 {
            self.parts.stats.add_vanished(lost as u64);
            tracing::warn!(
                topic = self.parts.config.topic,
                partition,
                lost,
                begins = range.start,
                ends = range.end,
                "failed records are gone from the topic before they could be emitted again; they count as done"
            );
        }
    }

    pub(super) fn warn_of_loss(&self, partition: u32, from: u64, to: u64, what: &str) {
        self.parts.stats.add_vanished(to - from);
        tracing::warn!(topic = self.parts.config.topic, partition, from, to, "{what}");
    }

    /// Looks for new partitions now and then, without waiting for the answer.
    pub(super) async fn refresh(&mut self, now: Duration) -> Result<(), TaskError> {
        if self.refreshing.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(refreshing) = self.refreshing.take()
        {
            match refreshing.await? {
                Ok(found) if found.id != self.id => return self.begin_anew(&found.id).await,
                Ok(found) => self.take_up(found).await?,
                Err(error) => {
                    tracing::warn!(topic = self.parts.config.topic, %error, "new partitions cannot be looked for");
                }
            }
        }
        if self.refreshing.is_none() && now >= self.refresh_at {
            self.refresh_at = now + self.parts.config.refresh_interval;
            let look =
                opening::refresh(self.group.clone(), Arc::clone(&self.note), self.place, self.partitions);
            self.refreshing = Some(tokio::spawn(look));
        }
        Ok(())
    }

    /// Begins with partitions that were added, once the group knows where.
    async fn take_up(&mut self, found: Found) -> Result<(), TaskError> {
        let topic = &self.parts.config.topic;
        if let Err(error) = self.group.clone().commit(found.news).await {
            tracing::warn!(topic, %error, "new partitions wait until their beginning is committed");
            return Ok(());
        }
        for (partition, start) in found.starts {
            tracing::info!(topic, partition, start, "a new partition is read");
            self.slots.begin(partition, start)?;
            self.reader.seek(partition, start)?;
        }
        self.partitions = self.partitions.max(found.partitions);
        Ok(())
    }

    /// The topic was deleted and made again: none of its offsets means what it meant.
    async fn begin_anew(&mut self, id: &LogId) -> Result<(), TaskError> {
        let topic = &self.parts.config.topic;
        tracing::warn!(topic, was = %self.id, is = %id, "the topic was created anew; it is read from its beginning");
        // Whether this succeeds or is tried again at the next look: what is still heard of records of the old topic
        // names slots that are in use no more, and those numbers never come back.
        self.slots.retire();
        self.fetched.clear();
        self.astray = None;
        // An offset of the old topic must not be what the group remembers of the new one.
        self.committer.quiet(&mut self.slots, self.context.now()).await?;
        let (parts, context) = (self.parts.clone(), self.context.clone());
        let opened = Self::open_with(parts, context, Past::OfAnotherTopic, &mut self.slots).await;
        match opened {
            Ok(reading) => *self = reading,
            Err(error) => {
                self.slots.retire();
                return Err(error);
            }
        }
        Ok(())
    }
}
