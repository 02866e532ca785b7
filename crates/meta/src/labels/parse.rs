//! The text form of label selectors: tokens and a small recursive descent.

use super::{Operator, Requirement, SelectorError};
use crate::field::FieldError;
use crate::names;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Close,
    Comma,
    Not,
    Open,
    Operator(Operator, &'a str),
    Identifier(&'a str),
    Unknown(String),
}

impl Token<'_> {
    fn text(&self) -> String {
        match self {
            Self::End => String::new(),
            Self::Close => ")".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Not => "!".to_owned(),
            Self::Open => "(".to_owned(),
            Self::Operator(_, text) | Self::Identifier(text) => (*text).to_owned(),
            Self::Unknown(text) => text.clone(),
        }
    }

    /// `in` and `notin` are values too, where a value is expected.
    fn identifier(&self) -> Option<&str> {
        match self {
            Self::Identifier(text) => Some(text),
            Self::Operator(Operator::In | Operator::NotIn, text) => Some(text),
            _ => None,
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

/// Requirements of `text`, in the order written.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), position: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            token if token.identifier().is_some() || *token == Token::Not => {}
            token => {
                return Err(found(token, "!, identifier, or 'end of string'"));
            }
        }
        let requirement = parser
            .requirement()
            .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => {
                let next = parser.peek();
                if next.identifier().is_none() && *next != Token::Not {
                    return Err(found(next, "identifier after ','"));
                }
            }
            other => return Err(found(&other, "',' or 'end of string'")),
        }
    }
}

fn found(token: &Token<'_>, expected: &str) -> SelectorError {
    SelectorError(format!("found '{}', expected: {expected}", token.text()))
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token<'a> {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next();
        let negated = token == Token::Not;
        if negated {
            token = self.next();
        }
        let Some(key) = token.identifier().map(str::to_owned) else {
            return Err(found(&token, "identifier"));
        };
        let messages = names::is_qualified_name(&key);
        if !messages.is_empty() {
            let error = FieldError::invalid("<nil>", key, messages.join("; "));
            return Err(SelectorError(error.to_string()));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, []);
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, []);
        }
        let operator = match self.next() {
            Token::Operator(operator, _) => operator,
            other => return Err(found(&other, "in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        let token = self.next();
        token.identifier().map(str::to_owned).ok_or_else(|| found(&token, "identifier"))
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != Token::Open {
            return Err(SelectorError(format!("found '{}' expected: '('", open.text())));
        }
        let mut values = Vec::new();
        let mut wants_value = true;
        loop {
            let token = self.next();
            if let Some(value) = token.identifier() {
                if !wants_value {
                    return Err(found(&token, "',' or ')'"));
                }
                values.push(value.to_owned());
                wants_value = false;
                continue;
            }
            match token {
                Token::Comma => {
                    if wants_value {
                        values.push(String::new());
                    }
                    wants_value = true;
                }
                Token::Close => {
                    if wants_value {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                other if wants_value => return Err(found(&other, "',', ')' or identifier")),
                other => return Err(found(&other, "',' or ')'")),
            }
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else { return tokens };
        let (token, length) = if is_symbol(first) { symbol(rest) } else { word(rest) };
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn symbol(rest: &str) -> (Token<'_>, usize) {
    const OPERATORS: [(&str, Operator); 5] = [
        ("==", Operator::DoubleEquals),
        ("!=", Operator::NotEquals),
        ("=", Operator::Equals),
        (">", Operator::GreaterThan),
        ("<", Operator::LessThan),
    ];
    for (text, operator) in OPERATORS {
        if let Some(matched) = rest.get(..text.len()).filter(|start| *start == text) {
            return (Token::Operator(operator, matched), text.len());
        }
    }
    match rest.as_bytes()[0] {
        b'(' => (Token::Open, 1),
        b')' => (Token::Close, 1),
        b',' => (Token::Comma, 1),
        b'!' => (Token::Not, 1),
        other => (Token::Unknown(char::from(other).to_string()), 1),
    }
}

fn word(rest: &str) -> (Token<'_>, usize) {
    let length = rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len());
    let text = &rest[..length];
    let token = match text {
        "in" => Token::Operator(Operator::In, text),
        "notin" => Token::Operator(Operator::NotIn, text),
        _ => Token::Identifier(text),
    };
    (token, length)
}
