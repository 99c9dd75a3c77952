//! Reads secrets from where the configuration says they are.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracing::warn;
use zeroize::Zeroizing;

use crate::config::{self, Secret};
use crate::tsig::{Key, KeyError};

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read {0}")]
    File(Secret, #[source] io::Error),
    #[error("the environment has no {0}")]
    Env(Secret),
    #[error("{0}")]
    Key(Secret, #[source] KeyError),
    #[error("{0} is empty")]
    Empty(Secret),
    #[error("{0} holds more than a line of visible ASCII, which is all that a header can show")]
    NoToken(Secret),
    #[error("{0} does not hold user:password")]
    NoPair(Secret),
}

/// The text of a secret, without the line end.
pub fn read(secret: &Secret) -> Result<Zeroizing<String>, SecretError> {
    let text = match secret {
        Secret::File(path) => {
            warn_if_open(path);
            std::fs::read_to_string(path)
                .map_err(|error| SecretError::File(secret.clone(), error))?
        }
        Secret::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(secret.clone()))?,
    };
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// `user:password`, neither empty, as ZooKeeper's digest scheme takes it.
pub fn pair(secret: &Secret) -> Result<Zeroizing<String>, SecretError> {
    let text = read(secret)?;
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(text),
        _ => Err(SecretError::NoPair(secret.clone())),
    }
}

/// What who writes over HTTP has to show. Blanks about it are not of it, for headers carry none.
pub fn token(secret: &Secret) -> Result<Zeroizing<String>, SecretError> {
    let text = Zeroizing::new(read(secret)?.trim().to_owned());
    match text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic()) {
        _ if text.is_empty() => Err(SecretError::Empty(secret.clone())),
        true => Ok(text),
        false => Err(SecretError::NoToken(secret.clone())),
    }
}

/// Whether everybody on this machine can read a file.
pub fn others_can_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

fn warn_if_open(path: &Path) {
    if others_can_read(path) {
        warn!("others can read the secret in {}: chmod o-r", path.display());
    }
}

/// The keys of a target.
#[derive(Clone, Debug)]
pub struct Keys {
    pub update: Key,
    pub transfer: Key,
}

/// A TSIG key.
pub fn key(secret: &Secret) -> Result<Key, SecretError> {
    Key::parse(&read(secret)?).map_err(|error| SecretError::Key(secret.clone(), error))
}

/// Reads the keys of a target.
pub fn keys(target: &config::Target) -> Result<Keys, SecretError> {
    let update = key(&target.update_key)?;
    let transfer = match target.transfer_key == target.update_key {
        true => update.clone(),
        false => key(&target.transfer_key)?,
    };
    Ok(Keys { update, transfer })
}
