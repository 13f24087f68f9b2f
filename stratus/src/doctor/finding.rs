//! What an examination has found, and how it is told.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) subject: String,
    pub(super) verdict: Verdict,
    pub(super) what: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) todo: Option<String>,
}

/// Something that is not as it should be.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) verdict: Verdict,
    pub(super) what: String,
    pub(super) todo: String,
}

/// A problem, and what to do about it.
pub(super) fn problem(what: impl fmt::Display, todo: impl Into<String>) -> Trouble {
    Trouble { verdict: Verdict::Problem, what: what.to_string(), todo: todo.into() }
}

/// A thing to know, and what to do about it.
pub(super) fn warning(what: impl fmt::Display, todo: impl Into<String>) -> Trouble {
    Trouble { verdict: Verdict::Warning, what: what.to_string(), todo: todo.into() }
}

impl Finding {
    pub(super) fn of(subject: String, found: Result<String, Trouble>) -> Self {
        match found {
            Ok(what) => Self { subject, verdict: Verdict::Ok, what, todo: None },
            Err(Trouble { verdict, what, todo }) => {
                Self { subject, verdict, what, todo: Some(todo).filter(|todo| !todo.is_empty()) }
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        write!(f, "{verdict:<8} {}: {}", self.subject, self.what)?;
        match &self.todo {
            Some(todo) => write!(f, "\n         -> {todo}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do() {
        let fine = Finding::of("lake".into(), Ok("./data/lake".into()));
        assert_eq!(fine.to_string(), "ok       lake: ./data/lake");
        let bad = Finding::of("state".into(), Err(problem("it is full", "give it more memory")));
        assert_eq!(bad.to_string(), "PROBLEM  state: it is full\n         -> give it more memory");
    }
}
