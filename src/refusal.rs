//! Why a request over HTTP has no other answer, in words and as a status.

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::held::PlanId;
use crate::kept::Leaving;
use crate::streamed::Busy;

/// Why a request has no other answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("404: Page Not Found")]
    NoPage,
    #[error("405: Method Not Allowed")]
    Method,
    #[error("no state was read from any master yet")]
    NothingYet,
    #[error("{0:?} is no domain name")]
    NoName(String),
    #[error("{0:?} is no plan id: 12 hexadecimal digits")]
    NoId(String),
    #[error(
        "nothing is held by the id {0}: it was approved, is wanted again, or is held by another \
         process, the one that publishes; /v1/plan shows what is held here"
    )]
    NotHeld(PlanId),
    #[error("nothing can be approved here: the configuration has no [http] token_file")]
    NoToken,
    #[error("wrong token: show the one of [http] token_file")]
    WrongToken,
    #[error("the body is too long or came too slowly")]
    Body,
    #[error(
        "it took too long; an approval may be carried out all the same: /v1/plan shows what is held"
    )]
    Late,
    #[error(transparent)]
    Leaving(#[from] Leaving),
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refusal::NoPage | Refusal::NotHeld(_) => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::NothingYet | Refusal::Late | Refusal::Leaving(_) | Refusal::Busy(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::NoName(_) | Refusal::NoId(_) | Refusal::Body => StatusCode::BAD_REQUEST,
            Refusal::NoToken => StatusCode::FORBIDDEN,
            Refusal::WrongToken => StatusCode::UNAUTHORIZED,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        if matches!(self, Refusal::WrongToken) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
