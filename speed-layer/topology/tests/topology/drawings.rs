//! Drawings are DOT, whatever the names are.

use std::collections::BTreeMap;

use crate::kit::*;
use stratus_topology::*;

/// A token of DOT: a quoted string as Graphviz's scanner reads it, a word, or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Quoted(String),
    Word(String),
    Sign(String),
}

/// In quotes only `\"` is an escape; `\\` are two backslashes, neither of which escapes what follows.
fn tokens(dot: &str) -> Vec<Token> {
    let (mut chars, mut tokens) = (dot.chars().peekable(), Vec::new());
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                let mut text = String::new();
                loop {
                    match (chars.next().expect("a quote that ends"), chars.peek()) {
                        ('"', _) => break,
                        ('\\', Some('"')) => text.extend(chars.next()),
                        ('\\', Some('\\')) => {
                            chars.next();
                            text.push_str("\\\\");
                        }
                        (other, _) => text.push(other),
                    }
                }
                tokens.push(Token::Quoted(text));
            }
            '-' => {
                assert_eq!(chars.next(), Some('>'));
                tokens.push(Token::Sign("->".to_owned()));
            }
            '{' | '}' | '[' | ']' | '=' | ',' | ';' => tokens.push(Token::Sign(char.to_string())),
            char if char.is_whitespace() => {}
            char if char.is_alphanumeric() => {
                let mut word = char.to_string();
                while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            other => panic!("{other:?} in {dot}"),
        }
    }
    tokens
}

/// What a label shows: Graphviz's escapes, and HTML's.
fn shown(label: &str) -> String {
    let (mut chars, mut text) = (label.chars(), String::new());
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next().expect("an escape") {
                'n' => text.push('\n'),
                '\\' => text.push('\\'),
                other => panic!("\\{other} in {label}"),
            },
            other => text.push(other),
        }
    }
    text.replace("&lt;", "<").replace("&amp;", "&")
}

/// The labels of the nodes by their names, and of the edges by theirs.
type Drawing = (BTreeMap<String, String>, Vec<(String, String, String)>);

fn parsed(dot: &str) -> Drawing {
    let all = tokens(dot);
    let sign = |text: &str| Token::Sign(text.to_owned());
    let word = |text: &str| Token::Word(text.to_owned());
    assert_eq!(all[..3], [word("digraph"), word("topology"), sign("{")]);
    assert_eq!(all.last(), Some(&sign("}")));
    let (mut nodes, mut edges) = (BTreeMap::new(), Vec::new());
    for statement in all[3..all.len() - 1].split_inclusive(|token| *token == sign(";")) {
        let (Some(Token::Sign(_)), rest) = (statement.last(), &statement[..statement.len() - 1]) else {
            panic!("a statement that does not end: {statement:?}");
        };
        let label = |attributes: &[Token]| {
            let [open, inner @ .., close] = attributes else { panic!("{attributes:?}") };
            assert_eq!((open, close), (&sign("["), &sign("]")));
            let label = inner.split(|token| *token == sign(",")).find_map(|pair| match pair {
                [name, equals, Token::Quoted(text)] if *name == word("label") && *equals == sign("=") => {
                    Some(shown(text))
                }
                _ => None,
            });
            label.expect("a label")
        };
        match rest {
            [Token::Word(_), ..] => {}
            [Token::Quoted(from), arrow, Token::Quoted(to), attributes @ ..] if *arrow == sign("->") => {
                edges.push((from.clone(), to.clone(), label(attributes)));
            }
            [Token::Quoted(name), attributes @ ..] => {
                assert!(nodes.insert(name.clone(), label(attributes)).is_none(), "{name} is drawn once");
            }
            other => panic!("{other:?}"),
        }
    }
    (nodes, edges)
}

#[test]
fn drawings_are_dot_whatever_the_names() {
    let names = [
        "plain",
        "a \"quoted\" spout",
        "\"",
        "ends in a backslash\\",
        "\\\" both \\\\\"",
        "two\nlines",
        "\\n is no line",
        "\\N is no name",
        "a <b> & an &lt;entity&gt;",
        "] -> [",
    ];
    let mut builder = TopologyBuilder::new();
    for name in names {
        builder.set_spout(name, Feeder::new().spout(), 2);
    }
    let mut end = builder.set_bolt("end \\", || sink(|_| ()), 3).set_num_tasks(4);
    for name in names {
        end = end.fields_grouping(name, &["n"]);
    }
    builder.set_bolt("see", || sink(|_| ()), 1).input_stream("end \\", SYSTEM_STREAM, Grouping::Global);
    let dot = builder.build().unwrap().to_dot();
    let (nodes, edges) = parsed(&dot);
    assert_eq!(nodes.len(), names.len() + 2, "{dot}");
    for name in names {
        let of_name: Vec<_> = nodes.iter().filter(|(_, label)| **label == format!("{name}\n2")).collect();
        let [(node, _)] = of_name[..] else { panic!("{name:?} in {nodes:?}") };
        let drawn = edges.iter().filter(|(from, _, label)| from == node && label == "fields(n)");
        assert_eq!(drawn.count(), 1, "{name:?} in {edges:?}");
    }
    let last = nodes.iter().find(|(_, label)| *label == "end \\\n3 of 4 tasks").unwrap().0;
    assert!(edges.contains(&(last.clone(), "see".to_owned(), "__system: global".to_owned())), "{edges:?}");
    assert!(edges.iter().all(|(from, to, _)| nodes.contains_key(from) && nodes.contains_key(to)));
}

#[test]
fn a_drawing_names_components_streams_and_groupings() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("a \"quoted\" spout", feeder.spout(), 2);
    builder.set_bolt("end", || sink(|_| ()), 3).fields_grouping("a \"quoted\" spout", &["n"]);
    let dot = builder.build().unwrap().to_dot();
    assert!(dot.starts_with("digraph topology {") && dot.ends_with("}\n"), "{dot}");
    for part in ["shape=house", "shape=box", "\\\"quoted\\\"", "fields(n)", " -> \"end\""] {
        assert!(dot.contains(part), "no {part} in {dot}");
    }
}
