//! Names that tasks choose, in the value of a label.

use crate::name::{Name, NameError};

/// Why a chosen name is none that can be published.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChosenError {
    #[error("letters, digits and dashes between letters or digits make its labels")]
    Syntax,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("it is not within {0}")]
    Outside(Name),
}

/// The names in a comma-separated text: absolute with a final dot, else below `domain`.
pub fn names<'t>(
    text: &'t str,
    domain: &Name,
) -> impl Iterator<Item = (&'t str, Result<Name, ChosenError>)> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(move |part| (part, read(part, domain)))
}

fn read(text: &str, domain: &Name) -> Result<Name, ChosenError> {
    let (labels, base) = match text.strip_suffix('.') {
        Some(absolute) => (absolute, &Name::root()),
        None => (text, domain),
    };
    // What addresses stand at is a host name: RFC 1123, section 2.1.
    if !labels.split('.').all(is_host_label) {
        return Err(ChosenError::Syntax);
    }
    let name = base.below(labels.rsplit('.').map(str::as_bytes))?;
    match name.is_within(domain) {
        true => Ok(name),
        false => Err(ChosenError::Outside(domain.clone())),
    }
}

fn is_host_label(label: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    let ends_well = !label.starts_with('-') && !label.ends_with('-');
    !label.is_empty() && ends_well && label.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[Result<&str, &str>]) {
        let domain = "prod.mesos".parse().unwrap();
        let read = names(text, &domain).map(|(_, name)| {
            name.map(|name| name.to_string()).map_err(|error| error.to_string()[..9].to_owned())
        });
        let expected = expected.iter().map(|e| e.map(str::to_owned).map_err(str::to_owned));
        assert_eq!(read.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{text}");
    }

    #[test]
    fn chosen_names_are_host_names_within_the_domain() {
        check("web", &[Ok("web.prod.mesos.")]);
        check(" Web , a.b ,,", &[Ok("web.prod.mesos."), Ok("a.b.prod.mesos.")]);
        check("web.prod.mesos.", &[Ok("web.prod.mesos.")]);
        check("prod.mesos.", &[Ok("prod.mesos.")]);
        check("prod.mesos", &[Ok("prod.mesos.prod.mesos.")]);
        check("www.example.com.,ok", &[Err("it is not"), Ok("ok.prod.mesos.")]);
        check("mesos.", &[Err("it is not")]);
        for bad in ["a b", "a..b", ".", "..", "-a", "a-", "_tcp", "*", "a\\.b", "@", "ä", ".a"] {
            check(bad, &[Err("letters, ")]);
        }
        check(&"a".repeat(64), &[Err("label of ")]);
        check(&"a.".repeat(130), &[Err("name of 2")]);
        check("", &[]);
    }
}
