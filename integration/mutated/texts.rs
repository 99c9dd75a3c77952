//! What people write: configurations, keys, names, patterns, and what stands in TXT records.

use std::sync::Arc;

use mesozone::config::Config;
use mesozone::fence::{Fence, Found, Owner};
use mesozone::name::{NAME_MAX, Name};
use mesozone::rr::Rdata;
use mesozone::scope::Pattern;
use mesozone::tsig::{self, Key};
use mesozone::wire::Reader;
use proptest::prelude::*;
use proptest::sample::Index;

use super::change::{changes, seeded};
use super::{file, files};
use crate::hunting::hunt;

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn a_configuration_is_read_or_refused_with_a_reason() {
    let texts: Vec<Vec<u8>> = files("examples", ".toml").into_iter().map(|(_, t)| t).collect();
    hunt(200, (any::<Index>(), changes()), |(at, octets)| {
        let text = text(&seeded(&texts, &at, &octets));
        match Config::parse(&text) {
            Ok(config) => drop(config.check_purpose()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        Ok(())
    });
}

#[test]
fn a_configuration_of_brackets_is_refused() {
    for text in ["[".repeat(100_000), "a = ".to_owned() + &"[".repeat(100_000)] {
        assert!(Config::parse(&text).is_err());
    }
    let dotted = "a.".repeat(50_000) + "a = 1";
    assert!(Config::parse(&dotted).is_err());
    let tables = "a = ".to_owned() + &"{ a = ".repeat(20_000);
    assert!(Config::parse(&tables).is_err());
}

#[test]
fn a_key_is_read_or_refused_and_its_secret_never_told() {
    let texts = [
        file("examples/bind/mesozone.key"),
        b"key k{algorithm hmac-sha1-80;secret\"cXZuMUNxdVQ=\";};".to_vec(),
    ];
    let secret = text(&texts[0]).split('"').nth(3).expect("name and secret in quotes").to_owned();
    hunt(2_000, (any::<Index>(), changes()), |(at, octets)| {
        let text = text(&seeded(&texts, &at, &octets));
        match Key::parse(&text) {
            Ok(key) => {
                let mut message = vec![0; 12];
                tsig::sign(&mut message, &key, 1_800_000_000);
                prop_assert_eq!(message.len(), 12 + key.signature_len());
            }
            Err(error) => {
                let told = format!("{error} {error:?}");
                let piece = |at: usize| told.contains(&secret[at..at + 8]);
                prop_assert!(!(0..secret.len() - 8).any(piece), "{}", told);
            }
        }
        Ok(())
    });
}

#[test]
fn a_name_is_read_back_as_it_was_written() {
    let texts = ["a.mesos", "\\000\\001x.\\.y.mesos.", "*.mesos", ".", "é.mesos", "_a._tcp.mesos"];
    let texts = texts.map(|text| text.as_bytes().to_vec());
    hunt(3_000, (any::<Index>(), changes()), |(at, octets)| {
        let text = text(&seeded(&texts, &at, &octets));
        let Ok(name) = text.parse::<Name>() else { return Ok(()) };
        prop_assert_eq!(&name.to_string().parse::<Name>(), &Ok(name.clone()));
        let mut octets = Vec::new();
        name.write(&mut octets);
        prop_assert!(octets.len() == name.wire_len() && octets.len() <= NAME_MAX);
        prop_assert_eq!(Reader::new(&octets).name(), Ok(name));
        Ok(())
    });
}

/// Whether a label matches, tried every way there is.
fn is_match(pattern: &[u8], label: &[u8]) -> bool {
    let mut reached = vec![false; label.len() + 1];
    reached[0] = true;
    for octet in pattern {
        let mut next = vec![false; label.len() + 1];
        for at in 0..=label.len() {
            match octet {
                b'*' => next[at] = reached[at] || at > 0 && next[at - 1],
                octet => next[at] = at > 0 && reached[at - 1] && label[at - 1] == *octet,
            }
        }
        reached = next;
    }
    reached[label.len()]
}

#[test]
fn a_pattern_matches_what_it_should_and_nothing_else() {
    let label = "[ab*]{1,9}";
    let case = (
        any::<bool>(),
        prop::collection::vec(label, 1..3),
        prop::collection::vec("[ab]{1,9}", 1..4),
    );
    hunt(4_000, case, |(deep, pattern, name)| {
        // A first label of two stars is itself the sign of any depth.
        prop_assume!(deep || pattern[0] != "**");
        let text = format!("{}{}.mesos", if deep { "**." } else { "" }, pattern.join("."));
        let read = Pattern::parse(&text).expect("a pattern");
        let owner: Name = format!("{}.mesos", name.join(".")).parse().expect("a name");
        let deeper = name.len().checked_sub(pattern.len());
        let fits = deeper.is_some_and(|deeper| if deep { deeper > 0 } else { deeper == 0 });
        let labels = pattern.iter().rev().zip(name.iter().rev());
        let same = labels.into_iter().all(|(p, l)| is_match(p.as_bytes(), l.as_bytes()));
        prop_assert_eq!(read.matches(&owner), fits && same);
        prop_assert!(read.is_within(&"mesos".parse().expect("a name")));
        Ok(())
    });
}

#[test]
fn a_changed_pattern_is_read_or_refused() {
    let texts =
        ["**.vip-*.mesos", "ns1.mesos.", "*", "**.a*b*c*.mesos"].map(|t| t.as_bytes().to_vec());
    let owner: Name = "vip-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.x.mesos".parse().unwrap();
    hunt(2_000, (any::<Index>(), changes()), |(at, octets)| {
        let text = text(&seeded(&texts, &at, &octets));
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(pattern.to_string(), text);
            let _read = (pattern.matches(&owner), pattern.is_within(&owner));
        }
        Ok(())
    });
}

#[test]
fn only_the_exact_form_is_a_fence() {
    let texts = [
        "v=1 owner=cluster-a instance=0000000000000007 epoch=3 adopted=yes until=run",
        "v=1 owner=a instance=ffffffffffffffff epoch=18446744073709551615 adopted=no until=0",
        "v=1 owner=b instance=0123456789abcdef epoch=1 adopted=yes until=1800000000",
    ];
    let data = texts.map(|text| [&[text.len() as u8], text.as_bytes()].concat());
    hunt(3_000, (any::<Index>(), changes()), |(at, octets)| {
        let rdata = Rdata::Other(Arc::from(seeded(&data, &at, &octets)));
        if let Some(fence) = Fence::parse(&rdata) {
            prop_assert_eq!(&fence.rdata(), &rdata);
            let owner = fence.owner.to_string();
            prop_assert_eq!(Owner::parse(&owner), Ok(fence.owner.clone()));
            prop_assert_eq!(Found::of(std::slice::from_ref(&rdata)), Found::Fence(fence));
        }
        Ok(())
    });
}
