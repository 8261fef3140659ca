//! `Accept`: which media type an answer is written in (RFC 9110 section 12.5.1).
//!
//! The document is the same in both; JSON-LD differs in its label only. Errors do not negotiate:
//! they are always `application/problem+json`.

use axum::response::{IntoResponse, Response};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use serde::Serialize;

use super::problem::{Outcome, Problem};

/// The media type of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerType {
    Json,
    JsonLd,
}

impl AnswerType {
    /// What the client asks for; JSON when it does not say.
    ///
    /// # Errors
    /// [`Outcome::NotAcceptable`]. Asked before anything is done, so that no request takes effect
    /// that could not be answered.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let ranges: Vec<&str> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|range| !range.is_empty())
            .collect();
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        let [json, json_ld] = [Self::Json, Self::JsonLd].map(|kind| kind.weight(&ranges));
        if json.max(json_ld) == 0 {
            let detail = "answers are application/json or application/ld+json";
            return Err(Problem::new(Outcome::NotAcceptable, detail).of_field(ACCEPT.as_str()));
        }
        Ok(if json_ld > json { Self::JsonLd } else { Self::Json })
    }

    /// Writes `value` as a 200.
    ///
    /// # Errors
    /// [`Outcome::Unencodable`]: a bug of ours, no view has such a value.
    pub(super) fn write(self, value: &impl Serialize) -> Result<Response, Problem> {
        let bytes = serde_json::to_vec(value)
            .map_err(|_| Problem::new(Outcome::Unencodable, "a value has no JSON form"))?;
        Ok(([(CONTENT_TYPE, self.media_type())], bytes).into_response())
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLd => "application/ld+json",
        }
    }

    /// How much the ranges want this one, in thousandths; the most specific range decides.
    fn weight(self, ranges: &[&str]) -> u16 {
        let patterns = ["*/*", "application/*", self.media_type()];
        let weigh = |range: &&str| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next()?;
            let rank = patterns.iter().position(|pattern| pattern.eq_ignore_ascii_case(named))?;
            let weight = match parts.find_map(|part| part.strip_prefix("q=")) {
                Some(text) => thousandths(text)?,
                None => 1000,
            };
            Some((rank, weight))
        };
        ranges.iter().filter_map(weigh).max().map_or(0, |(_, weight)| weight)
    }
}

/// A weight of RFC 9110 section 12.4.2 (`0.875`) in thousandths; `None` when it is not one.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_weight = matches!(whole, "0" | "1")
        && decimals.len() <= 3
        && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let number = format!("{whole}{decimals:0<3}").parse().ok()?;
    (is_weight && number <= 1000).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<AnswerType>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(AnswerType::of(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn the_most_specific_range_and_the_highest_weight_decide() {
        check("", Some(AnswerType::Json));
        check("*/*", Some(AnswerType::Json));
        check("application/*;q=0.1", Some(AnswerType::Json));
        check("Application/JSON", Some(AnswerType::Json));
        check("application/ld+json", Some(AnswerType::JsonLd));
        check("application/json;q=0.5, application/ld+json;q=0.9", Some(AnswerType::JsonLd));
        check("application/json;q=0, */*", Some(AnswerType::JsonLd));
        check("text/html, */*;q=0.8", Some(AnswerType::Json));
        check("application/yaml", None);
        check("text/html", None);
        check("*/*;q=0", None);
        check("application/json;q=0.0", None);
        check("application/json;q=7", None);
        check(";;;,,,=", None);
    }
}
