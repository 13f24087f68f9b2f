//! Users and what is kept of their passwords.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// What a verifier begins with, as in PostgreSQL's `pg_authid`.
const MECHANISM: &str = "SCRAM-SHA-256";
/// How often a password is hashed that comes in clear, as PostgreSQL does it.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// What is kept of a password: enough to check a proof of it, and nothing to log in with.
/// See RFC 5802, section 3, and RFC 5803.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    pub(crate) iterations: NonZeroU32,
    pub(crate) salt: Vec<u8>,
    pub(crate) stored_key: [u8; 32],
    pub(crate) server_key: [u8; 32],
}

/// Why a user cannot be configured. The text has no part of the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user \"{user}\": {what}")]
pub struct UserError {
    user: String,
    what: &'static str,
}

/// Those who may connect.
pub struct Users {
    known: BTreeMap<String, Verifier>,
    /// Makes up salts for users that do not exist, the same ones each time.
    mock: hmac::Key,
}

impl Users {
    /// Users by name, each with a password or a verifier as PostgreSQL writes it
    /// (`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`).
    ///
    /// # Errors
    /// An empty password, or a verifier that is none.
    pub fn new(secrets: impl IntoIterator<Item = (String, String)>) -> Result<Self, UserError> {
        let mut known = BTreeMap::new();
        for (user, secret) in secrets {
            let verifier = match secret.strip_prefix(MECHANISM).and_then(|rest| rest.strip_prefix('$')) {
                Some(rest) => Verifier::parse(rest).ok_or("the verifier is damaged"),
                None if secret.is_empty() => Err("the password is empty"),
                None if is_md5(&secret) => {
                    Err("this is an MD5 hash; give a SCRAM-SHA-256 verifier, or the password")
                }
                None => Ok(Verifier::of(&secret, &rand::random::<[u8; 16]>(), ITERATIONS)),
            };
            let verifier = verifier.map_err(|what| UserError { user: user.clone(), what })?;
            known.insert(user, verifier);
        }
        // Out of the configuration, so that it is the same after a restart and in every process, as real salts are.
        let all = known.values().map(ToString::to_string).collect::<String>();
        Ok(Self { known, mock: hmac::Key::new(hmac::HMAC_SHA256, &sha256(all.as_bytes())) })
    }

    /// What to keep of a password instead of the password.
    pub fn verifier(password: &str) -> String {
        Verifier::of(password, &rand::random::<[u8; 16]>(), ITERATIONS).to_string()
    }

    /// A user's verifier. For a user that does not exist, one that nothing can satisfy: whether a name exists is not
    /// told.
    pub(crate) fn find(&self, user: &str) -> Verifier {
        self.known.get(user).cloned().unwrap_or_else(|| Verifier {
            iterations: ITERATIONS,
            salt: hmac::sign(&self.mock, user.as_bytes()).as_ref()[..16].to_vec(),
            stored_key: rand::random(),
            server_key: rand::random(),
        })
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known.keys()).finish()
    }
}

impl Verifier {
    fn of(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        // PostgreSQL takes a password as it is if it cannot be normalised.
        let normal = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, normal.as_bytes(), &mut salted);
        let stored_key = sha256(&sign(&salted, b"Client Key"));
        Self { iterations, salt: salt.to_vec(), stored_key, server_key: sign(&salted, b"Server Key") }
    }

    fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text| STANDARD.decode(text).ok()?.try_into().ok();
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        write!(
            f,
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

/// What PostgreSQL kept of passwords before SCRAM.
fn is_md5(secret: &str) -> bool {
    let digits = secret.strip_prefix("md5").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// HMAC-SHA-256.
pub(crate) fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// SHA-256.
pub(crate) fn sha256(message: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_written_as_postgresql_does() {
        // RFC 7677, section 3: user, password "pencil".
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of("pencil", &salt, ITERATIONS);
        assert_eq!(
            verifier.to_string(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        let users = Users::new([("ann".to_owned(), verifier.to_string())]).unwrap();
        assert!(users.find("ann") == verifier);
    }

    #[test]
    fn secrets_are_not_shown_and_unknown_users_not_told() {
        let users = Users::new([("ann".to_owned(), "hush".to_owned())]).unwrap();
        assert_eq!(format!("{users:?}"), "{\"ann\"}");
        assert!(users.find("bob").salt == users.find("bob").salt);
        assert!(users.find("bob").salt != users.find("eve").salt);
        let damaged = Users::new([("ann".to_owned(), "SCRAM-SHA-256$4096:hush".to_owned())]).unwrap_err();
        assert_eq!(damaged.to_string(), "user \"ann\": the verifier is damaged");
        for secret in [String::new(), format!("md5{}", "0f".repeat(16))] {
            assert!(Users::new([("ann".to_owned(), secret)]).is_err());
        }
    }
}
