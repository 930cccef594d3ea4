//! Parameters behind the `?`: taken by name, at most once each; what is left was not understood and is told.

use axum::extract::FromRequestParts;
use axum::extract::Query as Pairs;
use axum::http::request::Parts;

use crate::domain::error::{Problem, Reason};
use crate::web::Failure;

#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a parameter, under its name or an alias.
    pub fn take(&mut self, names: &[&str]) -> Result<Option<String>, Problem> {
        let mut found = None;
        while let Some(i) = self.0.iter().position(|(name, _)| names.contains(&name.as_str())) {
            let (name, value) = self.0.remove(i);
            if found.replace(value).is_some() {
                return Err(Problem::new(Reason::BadFrame, format!("the parameter {name:?} stands twice")));
            }
        }
        Ok(found)
    }

    /// Takes a whole number within bounds.
    pub fn number(&mut self, name: &str, least: u32, most: u32) -> Result<Option<u32>, Problem> {
        let Some(text) = self.take(&[name])? else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let text = format!("{name:?} is a whole number from {least} to {most}, not {:?}", clip(&text));
                Err(Problem::new(Reason::BadFrame, text))
            }
        }
    }

    /// The names that nobody took, bounded for an answer.
    pub fn left(&self) -> impl Iterator<Item = String> {
        self.0.iter().take(8).map(|(name, _)| clip(name))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query, Failure> {
        let pairs = Pairs::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        pairs.map(|Pairs(pairs)| Query(pairs)).map_err(|error| Failure::new(Reason::BadFrame, error.to_string()))
    }
}

pub fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
