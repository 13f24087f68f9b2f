//! The server's side of SCRAM-SHA-256, without channel binding: RFC 5802 and RFC 7677. Pure: texts in, texts out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stratus_sql::SqlError;

use super::errors::error;
use super::users::{Verifier, sha256, sign};

/// The one mechanism that is offered.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// An exchange whose second message is awaited.
pub(crate) struct Exchange {
    verifier: Verifier,
    /// The client's header for channel binding, as it comes back in base64.
    binding: String,
    nonce: String,
    first_bare: String,
    server_first: String,
}

fn malformed(what: &str) -> SqlError {
    error("08P01", format!("malformed SCRAM message: {what}"))
}

impl Exchange {
    /// Answers a client's first message with ours. `nonce` is fresh randomness in printable characters.
    ///
    /// # Errors
    /// 08P01 for a message that is none, or asks for what is not offered.
    pub(crate) fn begin(message: &[u8], verifier: Verifier, nonce: &str) -> Result<(Self, String), SqlError> {
        let text = std::str::from_utf8(message).map_err(|_| malformed("it is not text"))?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authorised), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("the client's first message is too short"));
        };
        if flag != "n" && flag != "y" {
            return Err(malformed("channel binding is not offered"));
        }
        if !authorised.is_empty() {
            return Err(malformed("an authorisation identity is not supported"));
        }
        // The user is the one of the startup message; the name here is ignored, as in PostgreSQL.
        let mut attributes = bare.split(',');
        let (user, theirs) = (attributes.next(), attributes.next());
        if !user.is_some_and(|user| user.starts_with("n=")) {
            return Err(malformed("there is no user in it"));
        }
        let theirs = theirs.and_then(|theirs| theirs.strip_prefix("r=")).filter(|nonce| !nonce.is_empty());
        let nonce = format!("{}{nonce}", theirs.ok_or_else(|| malformed("there is no nonce in it"))?);
        let server_first =
            format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let exchange = Self {
            verifier,
            binding: STANDARD.encode(format!("{flag},,")),
            nonce,
            first_bare: bare.to_owned(),
            server_first: server_first.clone(),
        };
        Ok((exchange, server_first))
    }

    /// Checks a client's proof; answers with ours. None: the password is wrong.
    ///
    /// # Errors
    /// 08P01 for a message that is none, or does not belong to this exchange.
    pub(crate) fn end(self, message: &[u8]) -> Result<Option<String>, SqlError> {
        let text = std::str::from_utf8(message).map_err(|_| malformed("it is not text"))?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or_else(|| malformed("there is no proof in it"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|binding| binding.strip_prefix("c="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        if binding != Some(self.binding.as_str()) || nonce != Some(self.nonce.as_str()) {
            return Err(malformed("it belongs to another exchange"));
        }
        let proof = STANDARD.decode(proof).map_err(|_| malformed("the proof is not base64"))?;
        let signed = format!("{},{},{without_proof}", self.first_bare, self.server_first);
        let signature = sign(&self.verifier.stored_key, signed.as_bytes());
        if proof.len() != signature.len() {
            return Ok(None);
        }
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        // Without a branch on the bytes, so that the time tells nothing.
        let difference =
            sha256(&client_key).iter().zip(self.verifier.stored_key).fold(0, |all, (a, b)| all | (a ^ b));
        let ours = sign(&self.verifier.server_key, signed.as_bytes());
        Ok((difference == 0).then(|| format!("v={}", STANDARD.encode(ours))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::users::Users;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn begun() -> (Exchange, String) {
        let users = Users::new([("user".to_owned(), VERIFIER.to_owned())]).unwrap();
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        Exchange::begin(first, users.find("user"), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap()
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let (exchange, first) = begun();
        assert_eq!(
            first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let answer = exchange.end(last).unwrap();
        assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn a_wrong_proof_and_a_strange_message_are_told_apart() {
        let (exchange, _) = begun();
        let wrong = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.end(wrong).unwrap(), None);
        for strange in ["", "c=biws,r=other,p=AAAA", "c=eSws,r=x,p=AAAA", "c=biws"] {
            assert_eq!(begun().0.end(strange.as_bytes()).unwrap_err().sqlstate, "08P01", "{strange}");
        }
        let users = Users::new([("user".to_owned(), VERIFIER.to_owned())]).unwrap();
        for strange in ["", "n,,", "p=tls-unique,,n=u,r=x", "n,a=other,n=u,r=x", "n,,n=u,r=", "n,,r=x"] {
            let begun = Exchange::begin(strange.as_bytes(), users.find("user"), "nonce");
            assert_eq!(begun.err().unwrap().sqlstate, "08P01", "{strange}");
        }
    }
}
