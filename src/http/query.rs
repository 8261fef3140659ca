//! Query parameters: each route names the ones it knows, and any other is an error.

use std::collections::BTreeMap;

use axum::extract::Query;
use hyper::Uri;

use super::problem::{Outcome, Problem};

/// Reads the parameters of `uri`, of which `known` are allowed, each at most once.
///
/// # Errors
/// [`Outcome::BadQuery`], the client's fault; it names the parameter.
pub(super) fn parameters(
    uri: &Uri,
    known: &[&'static str],
) -> Result<BTreeMap<&'static str, String>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Problem::new(Outcome::BadQuery, "the query is not name=value pairs"))?;
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        let Some(&found) = known.iter().find(|known| **known == name) else {
            let words = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("no such parameter; this route knows: {words}");
            return Err(Problem::new(Outcome::BadQuery, detail).of_field(name));
        };
        if parameters.insert(found, value).is_some() {
            return Err(Problem::new(Outcome::BadQuery, "given more than once").of_field(found));
        }
    }
    Ok(parameters)
}
