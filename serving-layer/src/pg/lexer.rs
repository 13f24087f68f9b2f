//! The words of SQL text, as PostgreSQL's scanner sees them: enough to split a text into statements, to recognise
//! the statements that the front answers itself, and to know where each stands.
//!
//! The engine's own parser cannot do this: it rejects a whole text for one session command that it has never heard
//! of, and the position of an error must be counted in the text that the client has sent.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A key word or an unquoted name.
    Word,
    /// A name in double quotes.
    QuotedName,
    /// A string in single quotes or dollar quotes.
    String,
    /// A number.
    Number,
    /// Anything else: one character.
    Symbol,
}

/// A token and where it stands, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: TokenKind,
    /// Its bytes in the text.
    pub(crate) range: Range<usize>,
}

/// One statement of a text: its own text without the semicolon, where it begins, and its tokens (their ranges are
/// bytes of the statement's own text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The statement.
    pub(crate) text: String,
    /// How many characters of the whole text stand before it.
    pub(crate) offset: usize,
    /// Its tokens; never empty.
    pub(crate) tokens: Vec<Token>,
}

impl Piece {
    /// The token's text as it was written.
    pub(crate) fn written(&self, index: usize) -> Option<&str> {
        self.tokens.get(index).and_then(|token| self.text.get(token.range.clone()))
    }

    /// An unquoted word, in lower case.
    pub(crate) fn word(&self, index: usize) -> Option<String> {
        let token = self.tokens.get(index).filter(|token| token.kind == TokenKind::Word)?;
        self.text.get(token.range.clone()).map(str::to_ascii_lowercase)
    }

    /// Whether the unquoted words from `index` on are these (lower case).
    pub(crate) fn words_are(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.word(index + i).as_deref() == Some(*word))
    }

    /// A name (folded to lower case unless quoted), a string's value, or what was written of anything else.
    pub(crate) fn value(&self, index: usize) -> Option<String> {
        let token = self.tokens.get(index)?;
        let written = self.text.get(token.range.clone())?;
        Some(match token.kind {
            TokenKind::Word => written.to_ascii_lowercase(),
            TokenKind::QuotedName => unquote(written, '"'),
            TokenKind::String => string_value(written),
            TokenKind::Number | TokenKind::Symbol => written.to_owned(),
        })
    }
}

/// Splits a text into its statements; empty ones are left out.
///
/// # Errors
/// The message and the position (characters from 1 on) of a quote or comment that is never closed.
pub(crate) fn split(text: &str) -> Result<Vec<Piece>, (String, usize)> {
    let tokens = tokens(text)?;
    let mut pieces = Vec::new();
    let mut current: Vec<Token> = Vec::new();
    for token in tokens {
        if token.kind == TokenKind::Symbol && text.get(token.range.clone()) == Some(";") {
            pieces.extend(piece(text, std::mem::take(&mut current)));
        } else {
            current.push(token);
        }
    }
    pieces.extend(piece(text, current));
    Ok(pieces)
}

fn piece(text: &str, mut tokens: Vec<Token>) -> Option<Piece> {
    let start = tokens.first()?.range.start;
    let end = tokens.last()?.range.end;
    for token in &mut tokens {
        token.range = token.range.start - start..token.range.end - start;
    }
    Some(Piece { text: text.get(start..end)?.to_owned(), offset: text.get(..start)?.chars().count(), tokens })
}

fn unquote(written: &str, quote: char) -> String {
    let inner = written.strip_prefix(quote).and_then(|w| w.strip_suffix(quote)).unwrap_or(written);
    let doubled: String = [quote, quote].iter().collect();
    inner.replace(&doubled, &quote.to_string())
}

fn string_value(written: &str) -> String {
    if written.starts_with('$') {
        let tag = written.get(1..).and_then(|rest| rest.find('$')).map_or(0, |end| end + 2);
        return written.get(tag..written.len().saturating_sub(tag)).unwrap_or_default().to_owned();
    }
    if written.starts_with(['e', 'E']) {
        let inner = unquote(written.get(1..).unwrap_or_default(), '\'');
        return unescape(&inner);
    }
    unquote(written, '\'')
}

/// The escapes of `E'...'` that people use: the others stand for themselves, as in PostgreSQL.
fn unescape(inner: &str) -> String {
    let mut value = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => value.push('\n'),
            Some('t') => value.push('\t'),
            Some('r') => value.push('\r'),
            Some(other) => value.push(other),
            None => value.push('\\'),
        }
    }
    value
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn tokens(text: &str) -> Result<Vec<Token>, (String, usize)> {
    let bytes = text.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let run = |from: usize, keep: fn(u8) -> bool| {
        from + bytes.get(from..).unwrap_or_default().iter().take_while(|b| keep(**b)).count()
    };
    let unclosed = |what: &str, from: usize| {
        let position = text.get(..from).map_or(1, |before| before.chars().count() + 1);
        let near = text.get(from..).unwrap_or_default();
        (format!("unterminated {what} at or near \"{near}\""), position)
    };
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        let kind = match at(i) {
            b if b.is_ascii_whitespace() || b == 0x0b => {
                i += 1;
                continue;
            }
            b'-' if at(i + 1) == b'-' => {
                i = run(i, |b| b != b'\n');
                continue;
            }
            b'/' if at(i + 1) == b'*' => {
                i = comment_end(bytes, i).ok_or_else(|| unclosed("/* comment", start))?;
                continue;
            }
            b'\'' => {
                i = quote_end(bytes, i, b'\'', false).ok_or_else(|| unclosed("quoted string", start))?;
                TokenKind::String
            }
            b'e' | b'E' if at(i + 1) == b'\'' => {
                i = quote_end(bytes, i + 1, b'\'', true).ok_or_else(|| unclosed("quoted string", start))?;
                TokenKind::String
            }
            b'"' => {
                i = quote_end(bytes, i, b'"', false).ok_or_else(|| unclosed("quoted identifier", start))?;
                TokenKind::QuotedName
            }
            b'$' if dollar_tag(bytes, i).is_some() => {
                let tag = dollar_tag(bytes, i).unwrap_or_default();
                let body = bytes.get(i + tag.len()..).unwrap_or_default();
                let end = body.windows(tag.len()).position(|window| window == tag);
                i += 2 * tag.len() + end.ok_or_else(|| unclosed("dollar-quoted string", start))?;
                TokenKind::String
            }
            b if is_name_start(b) => {
                i = run(i, is_name_part);
                TokenKind::Word
            }
            b if b.is_ascii_digit() || (b == b'.' && at(i + 1).is_ascii_digit()) => {
                i = number_end(bytes, i);
                TokenKind::Number
            }
            _ => {
                i += 1;
                TokenKind::Symbol
            }
        };
        tokens.push(Token { kind, range: start..i });
    }
    Ok(tokens)
}

fn number_end(bytes: &[u8], from: usize) -> usize {
    let mut end = from;
    while let Some(byte) = bytes.get(end) {
        let exponent_sign = matches!(byte, b'+' | b'-')
            && end > from
            && matches!(bytes.get(end - 1), Some(b'e' | b'E'))
            && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign {
            end += 1;
        } else {
            break;
        }
    }
    end
}

/// The end of a quoted text that begins at `from`: a doubled quote stands for itself, and so, if asked, does what
/// follows a backslash.
fn quote_end(bytes: &[u8], from: usize, quote: u8, backslash: bool) -> Option<usize> {
    let mut i = from + 1;
    loop {
        let byte = *bytes.get(i)?;
        if backslash && byte == b'\\' {
            i += 2;
        } else if byte != quote {
            i += 1;
        } else if bytes.get(i + 1) == Some(&quote) {
            i += 2;
        } else {
            return Some(i + 1);
        }
    }
}

/// The end of a comment that begins at `from`; comments nest.
fn comment_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut i = from;
    loop {
        match (bytes.get(i)?, bytes.get(i + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                i += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => i += 1,
        }
    }
}

/// The opening tag of a dollar-quoted string, such as `$$` or `$body$`; a parameter (`$1`) is none.
fn dollar_tag(bytes: &[u8], from: usize) -> Option<&[u8]> {
    let rest = bytes.get(from + 1..)?;
    let end = rest.iter().position(|b| *b == b'$')?;
    let name = rest.get(..end)?;
    let is_tag = name.iter().all(|b| is_name_part(*b)) && !name.first().is_some_and(u8::is_ascii_digit);
    if is_tag { bytes.get(from..from + end + 2) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<String> {
        split(text).unwrap().into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_split_nothing() {
        let text =
            "select ';' ; select \"a;b\" /* ; /* ; */ ; */ ; -- ;\n select $x$ ; $$ ; $x$;;select E'\\';'";
        let expected =
            ["select ';'", "select \"a;b\"", "select $x$ ; $$ ; $x$", "select E'\\';'"].map(String::from);
        assert_eq!(texts(text), expected);
    }

    #[test]
    fn a_statement_knows_where_it_begins_in_characters() {
        let pieces = split("select 'é'; \n select 2").unwrap();
        assert_eq!(pieces.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 14]);
    }

    #[test]
    fn parameters_are_no_dollar_quotes() {
        assert_eq!(texts("select $1, $2; select $1"), ["select $1, $2", "select $1"]);
    }

    #[test]
    fn an_unclosed_quote_is_named_with_its_place() {
        let (message, position) = split("select 'é', 'open").unwrap_err();
        assert_eq!((message.as_str(), position), ("unterminated quoted string at or near \"'open\"", 13));
        assert!(split("select \"a").is_err() && split("/* /* */").is_err() && split("$a$ $b$").is_err());
    }

    #[test]
    fn values_are_unquoted() {
        let piece = split("SET \"A\"\"b\" = 'it''s' $t$x$t$ E'a\\nb' 12.5e-3 Foo").unwrap().remove(0);
        let values: Vec<_> = (0..piece.tokens.len()).filter_map(|i| piece.value(i)).collect();
        assert_eq!(values, ["set", "A\"b", "=", "it's", "x", "a\nb", "12.5e-3", "foo"]);
    }

    proptest! {
        /// Splitting loses nothing but semicolons, white space and comments, and never panics.
        #[test]
        fn tokens_lie_in_their_text(text in "[a-z'\"$;/*\\- \n0-9é\\\\]{0,60}") {
            if let Ok(pieces) = split(&text) {
                let mut from = 0;
                for piece in pieces {
                    prop_assert!(!piece.tokens.is_empty());
                    for i in 0..piece.tokens.len() {
                        prop_assert!(piece.written(i).is_some_and(|written| !written.is_empty()));
                    }
                    let found = text.chars().skip(piece.offset).take(piece.text.chars().count()).collect::<String>();
                    prop_assert_eq!(&found, &piece.text);
                    prop_assert!(piece.offset >= from);
                    from = piece.offset + piece.text.chars().count();
                }
            }
        }
    }
}
