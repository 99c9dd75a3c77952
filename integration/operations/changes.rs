//! Changes on purpose, as the guide has them: of keys, of the configuration, of the primary, and away
//! from mesozone.

use std::fs;

use serde_json::json;

use super::night::Night;
use super::{commands, section};
use crate::documents::blocks;
use crate::peer::{Peer, Setup};
use crate::running::until;

#[test]
fn a_key_is_rotated_without_a_refused_message() {
    let mut night = Night::start("");
    let [make, change] = &*commands("Rotating the key") else { panic!("two blocks") };
    let [both] = &*blocks(&section("Rotating the key"), "") else { panic!("BIND's side") };
    night.types(make, &[]).exits(0);
    let dir = night.site.peer.dir().display().to_string();
    let local = night.site.peer.dir().join("named.conf.local");
    let place = |text: &str| text.replace("/etc/bind", &dir).replace("/var/lib/bind", &dir);
    fs::write(&local, place(both)).unwrap();
    let said = night.types(change, &[]).exits(0).stdout;
    assert!(said.contains("allowed") && !said.contains("FAIL"), "{said}");
    night.daemon().says("the configuration is read again");
    night.start_task("fresh");
    until("it is there", || night.has("fresh"));
    // And without the old one.
    let new = both.lines().filter(|line| {
        !line.contains("grant mesozone subdomain") && !line.contains("/mesozone.key")
    });
    let new: String = new.map(|line| format!("{line}\n")).collect();
    fs::write(&local, place(&new.replace("key mesozone; ", ""))).unwrap();
    night.types("rndc reconfig\n", &[]).exits(0);
    night.start_task("later");
    until("it is there", || night.has("later"));
    let log = night.daemon().log().to_vec();
    assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
}

#[test]
fn what_is_protected_from_now_on_stays_and_what_is_not_any_more_is_ours() {
    let mut night = Night::start("protect = [\"printer.mesos\"]");
    night.site.peer.nsupdate("update add printer.mesos 60 A 10.0.0.7");
    let [reload] = &*commands("Changing `protect`") else { panic!("one block") };
    night.start_task("fresh");
    until("it is there", || night.has("fresh"));
    night.reconfigure("\"printer.mesos\"", "\"fresh.marathon.mesos\"");
    let shown = night.types(reload, &[]).exits(0).stdout;
    assert!(shown.contains("- printer.mesos. 60 A 10.0.0.7"), "{shown}");
    night.daemon().says("the configuration is read again");
    until("the printer goes", || night.site.peer.query("printer.mesos", "A").is_empty());
    night.master.control(json!({"kill": {"name": "fresh"}}));
    night.start_task("later");
    until("others follow", || night.has("later"));
    assert!(night.has("fresh"), "what is protected stays");
    night.reconfigure("protect", "protcet");
    let wrong = night.types(reload, &[]);
    assert!(wrong.code != 0 && wrong.stderr.contains("did you mean `protect`?"), "{wrong:#?}");
    let (_, hangup) = reload.split_once('\n').unwrap();
    night.types(hangup, &[]).exits(0);
    night.daemon().says("the configuration stays as it was");
}

#[test]
fn what_protect_gives_up_is_held_by_a_reload_where_it_is_much() {
    let many: String = (1..=200).map(|n| format!("p{n} A 10.7.0.{n}\n")).collect();
    let setup = Setup { records: &many, ..Setup::default() };
    let mut night =
        Night::of(&setup, "protect = [\"p*.mesos\", \"**.p1.mesos\"]\nmax_shrink = \"20%\"");
    night.run();
    until("all is published", || night.is_right());
    night.reconfigure("\"p*.mesos\", ", "");
    let [reload] = &*commands("Changing `protect`") else { panic!("one block") };
    let shown = night.types(reload, &[]).exits(0).stdout;
    let id = &shown.split("--approve ").nth(1).expect("a held set")[..12];
    let line = night.daemon().says("200 removals are held");
    assert!(line.contains(id), "the one that `diff` shows: {line} {shown}");
    night.start_task("later");
    until("others follow", || night.has("later"));
    let left = night.site.peer.axfr().into_iter().filter(|line| line.contains("\t10.7.0."));
    assert_eq!(left.count(), 200);
}

#[test]
fn a_reload_does_not_change_the_domain() {
    let mut night = Night::start("");
    night.reconfigure("[zone]", "[zone]\ndomain = \"prod.mesos\"");
    night.reconfigure("[[target]]", "[[target]]\nzone = \"mesos\"");
    night.types("kill -HUP \"$(pidof mesozone)\"\n", &[]).exits(0);
    let line = night.daemon().says("the configuration stays as it was");
    assert!(line.contains("[zone] domain is read at the start"), "{line}");
}

#[test]
fn a_new_primary_is_filled_beside_the_old_one_which_stays_as_it_is() {
    let mut night = Night::start("");
    let new = Peer::Bind.start(&Setup::default());
    let before = new.axfr();
    let [target] = &*blocks(&section("Moving to a new primary"), "toml") else {
        panic!("a target")
    };
    let [fill] = &*commands("Moving to a new primary") else { panic!("one block") };
    let key = night.site.peer.dir().join("mesozone/bind.key").display().to_string();
    let target = target
        .replace("10.0.0.54:53", &new.addr().to_string())
        .replace("/etc/mesozone/bind.key", &key);
    let old = fs::read_to_string(night.site.config()).unwrap();
    fs::write(night.site.config(), old + &target).unwrap();
    // Between two lines the reader lets it work.
    let [reload, rest] = &*fill.splitn(2, '\n').collect::<Vec<_>>() else { panic!("{fill}") };
    night.types(reload, &[]).exits(0);
    night.daemon().says("the configuration is read again: 2 targets");
    until("it is filled", || {
        !new.axfr().is_empty()
            && new.axfr().len() > before.len() + 40
            && night.json("/v1/status")["targets"][1]["state"] == "well"
    });
    night.types(rest, &[]).exits(0);
    let text = fs::read_to_string(night.site.config()).unwrap();
    let start = text.find("[[target]]").unwrap();
    let end = start + text[start..].find("[zone]").unwrap();
    fs::write(night.site.config(), [&text[..start], &text[end..]].concat()).unwrap();
    night.types(reload, &[]).exits(0);
    night.daemon().says("its zone stays as it is");
    until("its fence is free", || night.fence().contains("until=0"));
    night.start_task("fresh");
    until("the new one follows", || !new.query("fresh.marathon.mesos", "A").is_empty());
    assert!(!night.has("fresh") && night.has("app"));
}

#[test]
fn what_was_published_is_removed_and_nothing_else() {
    let setup = Setup { records: "printer A 10.0.0.7", ..Setup::default() };
    let mut night = Night::of(&setup, "protect = [\"printer.mesos\"]");
    night.run();
    until("all is published", || night.is_right());
    night.stop();
    let [remove] = &*commands("Removing mesozone") else { panic!("one block") };
    night.types(remove, &[]).exits(0);
    assert_eq!(night.site.peer.axfr(), night.before);
}
