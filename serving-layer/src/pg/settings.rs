//! The parameters of a connection, and how `SET`, `RESET`, `SHOW` and the end of a transaction change them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stratus_sql::SqlError;

use super::parameter::{PARAMETERS, accept, known, milliseconds, unknown};
use crate::service::{Notice, Settings};

/// The parameters that a client is told about at the start and whenever they change.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// The parameters of a connection, with what their transaction may yet undo.
#[derive(Debug)]
pub(crate) struct Parameters {
    settings: Arc<Settings>,
    /// What the connection began with: `RESET` goes back to it.
    first: BTreeMap<String, String>,
    /// What a rollback goes back to, while a transaction is open.
    before: Option<BTreeMap<String, String>>,
    /// What a commit leaves: without what was set by `SET LOCAL`.
    lasting: BTreeMap<String, String>,
    /// What the client was last told.
    told: BTreeMap<&'static str, String>,
}

impl Parameters {
    /// The parameters of a connection whose startup message had these. A setting that cannot be taken is left at
    /// its default, with a warning: drivers send their machine's time zone unasked.
    pub(crate) fn start(user: &str, asked: &BTreeMap<String, String>) -> (Self, Vec<Notice>) {
        let mut first: BTreeMap<String, String> = PARAMETERS
            .iter()
            .map(|(name, default, _)| (name.to_ascii_lowercase(), (*default).to_owned()))
            .collect();
        first.insert("session_authorization".into(), user.to_owned());
        let mut notices = Vec::new();
        for (name, value) in asked {
            let name = name.to_ascii_lowercase();
            match accept(&name, value) {
                Ok((value, notice)) => {
                    first.insert(name, value);
                    notices.extend(notice);
                }
                Err(refused) => notices.push(Notice::warning("01000", refused.message)),
            }
        }
        let settings = Arc::new(Settings::default());
        settings.replace(first.clone());
        let parameters =
            Self { settings, lasting: first.clone(), first, before: None, told: BTreeMap::new() };
        (parameters, notices)
    }

    /// The settings as the engine sees them.
    pub(crate) fn shared(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// The longest that a statement may run.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        let value = self.settings.get("statement_timeout")?;
        milliseconds(&value).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// `SET name = value`; no value means what the connection began with.
    ///
    /// # Errors
    /// 42704 for an unknown parameter, 22023 or 0A000 for a value that it cannot have, 55P02 for a fixed one.
    pub(crate) fn set(
        &mut self,
        local: bool,
        name: &str,
        value: Option<&str>,
    ) -> Result<Option<Notice>, SqlError> {
        let (value, notice) = match value {
            Some(value) => accept(name, value)?,
            None => {
                if !name.contains('.') {
                    known(name).ok_or_else(|| unknown(name))?;
                }
                (self.first.get(name).cloned().unwrap_or_default(), None)
            }
        };
        if local && self.before.is_none() {
            return Ok(Some(Notice::warning("25P01", "SET LOCAL can only be used in transaction blocks")));
        }
        if !local {
            self.lasting.insert(name.to_owned(), value.clone());
        }
        self.settings.set(name, value);
        Ok(notice)
    }

    /// `RESET name`, or all of them.
    ///
    /// # Errors
    /// 42704 for an unknown parameter.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), SqlError> {
        match name {
            Some(name) => self.set(false, name, None).map(|_| ()),
            None => {
                self.lasting = self.first.clone();
                self.settings.replace(self.first.clone());
                Ok(())
            }
        }
    }

    /// The name as it is spelled and the value of one parameter.
    ///
    /// # Errors
    /// 42704 for an unknown parameter.
    pub(crate) fn show(&self, name: &str) -> Result<(String, String), SqlError> {
        let spelled = known(name).map_or(name, |(spelled, ..)| spelled);
        let value = self.settings.get(name).ok_or_else(|| unknown(name))?;
        Ok((spelled.to_owned(), value))
    }

    /// Every parameter with its value, in the order of their names.
    pub(crate) fn show_all(&self) -> Vec<(String, String)> {
        let spelled =
            |name: String| known(&name).map_or_else(|| name.clone(), |(spelled, ..)| spelled.to_owned());
        self.settings.all().into_iter().map(|(name, value)| (spelled(name), value)).collect()
    }

    /// A transaction begins.
    pub(crate) fn begin(&mut self) {
        self.before = Some(self.settings.all());
        self.lasting = self.settings.all();
    }

    /// The transaction ends: what was set for it alone goes, and after a rollback everything that it set.
    pub(crate) fn end(&mut self, committed: bool) {
        let Some(before) = self.before.take() else {
            return;
        };
        if !committed {
            self.lasting = before;
        }
        self.settings.replace(self.lasting.clone());
    }

    /// The reported parameters that have changed since the client was last told.
    pub(crate) fn news(&mut self) -> Vec<(&'static str, String)> {
        let mut news = Vec::new();
        for name in REPORTED {
            let value = self.settings.get(&name.to_ascii_lowercase()).unwrap_or_default();
            if self.told.get(name) != Some(&value) {
                self.told.insert(name, value.clone());
                news.push((*name, value));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(asked: &[(&str, &str)]) -> (Parameters, Vec<Notice>) {
        let asked = asked.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Parameters::start("ada", &asked)
    }

    fn value(parameters: &Parameters, name: &str) -> String {
        parameters.show(name).unwrap().1
    }

    #[test]
    fn a_drivers_startup_settings_are_taken_or_warned_about() {
        let (mut parameters, notices) = started(&[
            ("application_name", "psql"),
            ("TimeZone", "Europe/Berlin"),
            ("DateStyle", "ISO"),
            ("extra_float_digits", "2"),
            ("nonsense", "1"),
        ]);
        assert_eq!(notices.len(), 2, "{notices:?}");
        let news = parameters.news();
        for told in [("TimeZone", "UTC"), ("DateStyle", "ISO, MDY"), ("application_name", "psql")] {
            assert!(news.contains(&(told.0, told.1.to_owned())), "{told:?}");
        }
        assert!(
            news.iter().any(|(name, value)| *name == "server_version" && value.starts_with("16.6 (Stratus"))
        );
        assert!(parameters.news().is_empty(), "nothing is told twice");
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("250", Some(250)),
            ("5s", Some(5_000)),
            ("1.5 min", Some(90_000)),
            ("2 weeks", None),
            ("-1", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
        let (mut parameters, _) = started(&[]);
        assert_eq!(parameters.statement_timeout(), None);
        parameters.set(false, "statement_timeout", Some("2s")).unwrap();
        assert_eq!(parameters.statement_timeout(), Some(Duration::from_secs(2)));
        parameters.set(false, "statement_timeout", None).unwrap();
        assert_eq!(parameters.statement_timeout(), None);
    }

    #[test]
    fn a_setting_ends_with_its_transaction_if_it_should() {
        let (mut parameters, _) = started(&[]);
        parameters.set(false, "application_name", Some("a")).unwrap();
        parameters.begin();
        parameters.set(false, "application_name", Some("b")).unwrap();
        parameters.set(true, "statement_timeout", Some("7")).unwrap();
        assert_eq!(value(&parameters, "statement_timeout"), "7");
        parameters.end(true);
        assert_eq!(value(&parameters, "application_name"), "b");
        assert_eq!(value(&parameters, "statement_timeout"), "0");
        parameters.begin();
        parameters.set(false, "application_name", Some("c")).unwrap();
        parameters.end(false);
        assert_eq!(value(&parameters, "application_name"), "b");
        let outside = parameters.set(true, "application_name", Some("d")).unwrap().unwrap();
        assert_eq!((outside.sqlstate, value(&parameters, "application_name")), ("25P01", "b".to_owned()));
    }

    #[test]
    fn what_would_change_answers_is_refused() {
        let (mut parameters, _) = started(&[]);
        let mut sqlstate =
            |name: &str, value: &str| parameters.set(false, name, Some(value)).unwrap_err().sqlstate;
        assert_eq!(sqlstate("client_encoding", "LATIN1"), "0A000");
        assert_eq!(sqlstate("datestyle", "German"), "0A000");
        assert_eq!(sqlstate("bytea_output", "escape"), "0A000");
        assert_eq!(sqlstate("standard_conforming_strings", "off"), "0A000");
        assert_eq!(sqlstate("default_transaction_isolation", "serializable"), "0A000");
        assert_eq!(sqlstate("server_version", "9"), "55P02");
        assert_eq!(sqlstate("jit", "perhaps"), "22023");
        assert_eq!(sqlstate("no_such", "1"), "42704");
        assert!(parameters.set(false, "timezone", Some("Asia/Tokyo")).unwrap().is_some());
        assert_eq!(value(&parameters, "timezone"), "UTC");
    }

    #[test]
    fn a_name_with_a_dot_is_the_engines_own() {
        let (mut parameters, _) = started(&[]);
        parameters.set(false, "stratus.allow_stale", Some("on")).unwrap();
        assert_eq!(parameters.shared().get("stratus.allow_stale").as_deref(), Some("on"));
        assert_eq!(parameters.show("stratus.other").unwrap_err().sqlstate, "42704");
        parameters.reset(None).unwrap();
        assert_eq!(parameters.shared().get("stratus.allow_stale"), None);
    }
}
