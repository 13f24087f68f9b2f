//! What the demo shows while it runs: live on a terminal, a line per second elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::watcher::Seen;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where the demo's progress goes.
#[derive(Debug)]
pub(crate) struct Display {
    began: Instant,
    lines: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Terminal { all: MultiProgress, sent: ProgressBar, answer: ProgressBar, refresh: ProgressBar },
    Lines { last: Mutex<Option<Instant>> },
}

impl Display {
    /// A display for so many lines of events.
    pub(crate) fn new(lines: u64) -> Self {
        let place = if io::stdout().is_terminal() && io::stderr().is_terminal() {
            let all = MultiProgress::new();
            let sent = all.add(
                ProgressBar::new(lines)
                    .with_style(style("  sent    {bar:24} {human_pos:>9} of {human_len}, {msg}")),
            );
            let answer = all.add(ProgressBar::new(lines).with_style(style("  answer  {msg}")));
            let refresh = all.add(ProgressBar::new_spinner().with_style(style("  batch   {msg}")));
            answer.set_message("waiting for the first events");
            refresh.set_message("recomputes when half of the events are sent");
            Place::Terminal { all, sent, answer, refresh }
        } else {
            Place::Lines { last: Mutex::new(None) }
        };
        Self { began: Instant::now(), lines, place }
    }

    /// Writes lines that stay.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        let write = || {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()
        };
        match &self.place {
            Place::Terminal { all, .. } => all.suspend(write),
            Place::Lines { .. } => write(),
        }
    }

    /// Shows how far it is.
    pub(crate) fn progress(&self, sent: u64, seen: &Seen) -> io::Result<()> {
        match &self.place {
            Place::Terminal { sent: bar, answer, .. } => {
                bar.set_position(sent);
                bar.set_message(format!("{} a second", grouped(bar.per_sec() as u64)));
                answer.set_message(answered(seen));
                Ok(())
            }
            Place::Lines { last } => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.is_some_and(|last| last.elapsed() < LINE_EVERY) {
                    return Ok(());
                }
                *last = Some(Instant::now());
                let seconds = self.began.elapsed().as_secs_f64();
                let of = grouped(self.lines);
                self.say(&format!("{seconds:6.1} s  {:>11} of {of} sent  {}", grouped(sent), answered(seen)))
            }
        }
    }

    /// Shows what the batch layer does.
    pub(crate) fn batch(&self, message: &str, over: bool) -> io::Result<()> {
        match &self.place {
            Place::Terminal { refresh, .. } => {
                refresh.set_message(message.to_owned());
                Ok(())
            }
            Place::Lines { .. } if over => self.say(&format!("          batch: {message}")),
            Place::Lines { .. } => Ok(()),
        }
    }

    /// Ends the live display; the last state stays.
    pub(crate) fn finish(&self, seen: &Seen) -> io::Result<()> {
        if let Place::Terminal { sent, answer, refresh, .. } = &self.place {
            let last = [
                format!("  sent    {}", grouped(sent.position())),
                format!("  answer  {}", answered(seen)),
                format!("  batch   {}", refresh.message()),
            ];
            for bar in [sent, answer, refresh] {
                bar.finish_and_clear();
            }
            self.say(&last.join("\n"))?;
        }
        Ok(())
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn answered(seen: &Seen) -> String {
    format!(
        "{:>9} views = {:>9} batch v{} + {:>9} speed, {:.1} s behind",
        grouped(seen.merged),
        grouped(seen.batch),
        seen.version,
        grouped(seen.speed),
        seen.behind.as_secs_f64()
    )
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(grouped(12_345), "12,345");
    }
}
