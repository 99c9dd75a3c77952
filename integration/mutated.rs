//! Every parser of what comes from outside, under input that was recorded or written and then
//! changed: none panics, none hangs, none makes more of its input than the input is, and none
//! takes a part for the whole.

mod change;
mod dns;
mod mesos;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the checkout.
fn file(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder whose names end like this, sorted.
fn files(folder: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the checkout") {
            let path = entry.expect("an entry of that folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} in {folder}");
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    found.iter().map(|path| (name(path), fs::read(path).expect("a file"))).collect()
}
