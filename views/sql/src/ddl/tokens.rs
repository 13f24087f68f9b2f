//! The tokens of a statement, with their places in the input.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::SqlError;
use crate::position::Text;

/// A token with its character offsets: where it starts, where it ends.
#[derive(Debug, Clone)]
struct Placed {
    token: Token,
    from: usize,
    to: usize,
}

/// The tokens of one statement, read from left to right.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    tokens: Vec<Placed>,
    next: usize,
}

/// The input's statements. Strings, quoted names, dollar quotes and comments may hold semicolons.
pub(super) fn statements(sql: &str) -> Result<Vec<Tokens>, SqlError> {
    let text = Text::new(sql);
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| SqlError::syntax(error.message.clone()).at(text.position(error.location)))?;
    let mut statements = Vec::new();
    let mut current = Vec::new();
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => statements.push(Tokens { tokens: std::mem::take(&mut current), next: 0 }),
            other => {
                let from = text.offset(token.span.start).unwrap_or_default();
                let to = text.offset(token.span.end).unwrap_or(from);
                current.push(Placed { token: other, from, to });
            }
        }
    }
    statements.push(Tokens { tokens: current, next: 0 });
    Ok(statements)
}

impl Tokens {
    /// Where the whole statement starts and ends; `None` of nothing.
    pub(super) fn extent(&self) -> Option<(usize, usize)> {
        Some((self.tokens.first()?.from, self.tokens.last()?.to))
    }

    /// The 1-based position of the next token, or of the statement's end.
    pub(super) fn position(&self) -> Option<usize> {
        self.peek().map(|token| token.from + 1).or_else(|| self.extent().map(|(_, to)| to + 1))
    }

    /// The offset of the next token, and that of the statement's end.
    pub(super) fn remainder(&self) -> Option<(usize, usize)> {
        Some((self.peek()?.from, self.extent()?.1))
    }

    fn peek(&self) -> Option<&Placed> {
        self.tokens.get(self.next)
    }

    /// The next token, without taking it.
    pub(super) fn token(&self) -> Option<&Token> {
        self.peek().map(|token| &token.token)
    }

    /// Takes the next token.
    pub(super) fn advance(&mut self) -> Option<Token> {
        let token = self.peek()?.token.clone();
        self.next += 1;
        Some(token)
    }

    /// Puts a token in place of the next one, which was taken in part.
    pub(super) fn replace(&mut self, token: Token) {
        if let Some(next) = self.tokens.get_mut(self.next) {
            next.token = token;
            next.from += 1;
        }
    }

    fn is_word(placed: Option<&Placed>, word: &str) -> bool {
        match placed.map(|placed| &placed.token) {
            Some(Token::Word(found)) => found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word),
            _ => false,
        }
    }

    /// Whether these keywords come next.
    pub(super) fn starts_with(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| Self::is_word(self.tokens.get(self.next + i), word))
    }

    /// Takes these keywords if they all come next.
    pub(super) fn take_words(&mut self, words: &[&str]) -> bool {
        let found = self.starts_with(words);
        if found {
            self.next += words.len();
        }
        found
    }

    /// Takes this token if it comes next.
    pub(super) fn take(&mut self, token: &Token) -> bool {
        let found = self.token() == Some(token);
        if found {
            self.next += 1;
        }
        found
    }

    /// Takes this token, which must come next.
    pub(super) fn expect(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(&format!("\"{token}\""))) }
    }

    /// The error that something else was expected here.
    pub(super) fn unexpected(&self, expected: &str) -> SqlError {
        let found = self.token().map_or_else(|| "the end".to_owned(), |token| format!("\"{token}\""));
        SqlError::syntax(format!("expected {expected}, found {found}")).at(self.position())
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), SqlError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the statement")),
        }
    }

    /// A name, in lower case unless it is quoted.
    pub(super) fn ident(&mut self, what: &str) -> Result<String, SqlError> {
        match self.token() {
            Some(Token::Word(word)) => {
                let name =
                    if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() };
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// A table's name, perhaps in the schema `public`.
    pub(super) fn name(&mut self, what: &str) -> Result<String, SqlError> {
        let position = self.position();
        let first = self.ident(what)?;
        if !self.take(&Token::Period) {
            return Ok(first);
        }
        if first != "public" {
            return Err(SqlError::new("3F000", format!("schema \"{first}\" does not exist"))
                .hint("everything that is created lives in the schema public")
                .at(position));
        }
        self.ident(what)
    }

    /// An unsigned number.
    pub(super) fn number(&mut self) -> Result<u64, SqlError> {
        let number = match self.token() {
            Some(Token::Number(digits, _)) => digits.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => {
                self.next += 1;
                Ok(number)
            }
            None => Err(self.unexpected("a number")),
        }
    }
}
