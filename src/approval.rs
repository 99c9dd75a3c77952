//! Letting go over HTTP what a target holds: for who shows the token, and nobody else.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Query;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::held::PlanId;
use crate::kept::Seen;
use crate::refusal::Refusal;
use crate::tsig;

/// The wait after a wrong token: nobody tries many.
const WRONG_TOKEN: Duration = Duration::from_millis(500);

/// What who writes has to show.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub fn new(text: Zeroizing<String>) -> Token {
        Token(text)
    }

    /// Compares in a time that tells nothing of either.
    fn is(&self, shown: &str) -> bool {
        tsig::equal(&Sha256::digest(self.0.as_bytes()), &Sha256::digest(shown.as_bytes()))
    }
}

#[derive(Serialize)]
pub(crate) struct Approved {
    approved: String,
    pub(crate) target: String,
    pub(crate) removals: usize,
}

#[derive(Deserialize)]
struct Form {
    token: String,
}

/// The token that a request shows: as RFC 6750 has it, or in a form.
pub(crate) fn shown(headers: &HeaderMap, body: &Bytes, is_form: bool) -> Option<Zeroizing<String>> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|value| value.split_once(' ')) {
        let is_bearer = scheme.eq_ignore_ascii_case("Bearer");
        return is_bearer.then(|| Zeroizing::new(token.trim().to_owned()));
    }
    let uri = || format!("/?{}", std::str::from_utf8(body).ok()?).parse::<Uri>().ok();
    let form = is_form.then(|| Query::<Form>::try_from_uri(&uri()?).ok()).flatten()?;
    Some(Zeroizing::new(form.0.token.trim().to_owned()))
}

/// Lets go what one of these targets holds by this id, for who shows the token.
pub(crate) async fn release(
    id: &str,
    (token, shown): (Option<Token>, Option<Zeroizing<String>>),
    targets: &[Seen],
) -> Result<Approved, Refusal> {
    let token = token.ok_or(Refusal::NoToken)?;
    if !shown.is_some_and(|shown| token.is(&shown)) {
        sleep(WRONG_TOKEN).await;
        return Err(Refusal::WrongToken);
    }
    let id: PlanId = id.parse().map_err(|_| Refusal::NoId(id.to_owned()))?;
    for seen in targets {
        let health = seen.health();
        if health.held_by(id).is_none() {
            continue;
        }
        if let Some(removals) = seen.approve(id).await? {
            return Ok(Approved { approved: id.to_string(), target: health.target, removals });
        }
    }
    Err(Refusal::NotHeld(id))
}
