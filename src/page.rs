//! The page for people.

use maud::html;

use crate::name::Name;
use crate::overview::Overview;
use crate::rr::{Rdata, Ttl, Type};

/// What a search for a name found.
#[derive(Clone, Debug)]
pub struct Search {
    /// As it was typed.
    pub asked: String,
    /// The name it was read as; what is wrong with it otherwise.
    pub found: Result<Found, String>,
}

#[derive(Clone, Debug)]
pub struct Found {
    pub name: Name,
    /// The records desired at the name.
    pub here: Vec<Answer>,
    /// By target: what its server answers, or why it does not.
    pub there: Vec<(String, Result<Vec<Answer>, String>)>,
}

/// One record.
pub type Answer = (Type, Ttl, Rdata);

/// What was just done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    Approved {
        target: String,
        count: usize,
    },
    /// What could not be done, and why.
    Refused(String),
}

pub fn page(overview: &Overview, search: Option<&Search>, notice: Option<&Notice>) -> String {
    let _ = (overview, search, notice);
    html! { p { "mesozone" } }.into_string()
}
