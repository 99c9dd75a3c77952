//! A configuration of mesos-dns into ours, as TOML with comments for people. What has an equal becomes
//! it; what has none is said with the reason, and so is what was not safe. What mesos-dns refused is
//! refused; what it took and we do not is left out with a comment. No secret is in what is made: the
//! file is named in which it belongs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{Config, ConfigError};
use crate::draft::{Draft, bare, list, quoted};
use crate::import_masters;
use crate::import_server;
use crate::mesos_dns::{MesosDns, MesosDnsError, wrong};
use crate::name::Name;
use crate::setting::{Domain, Word};

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Read(#[from] MesosDnsError),
    #[error("what would be made of this is no configuration of ours")]
    Made(#[source] ConfigError),
}

/// Reads the JSON of mesos-dns and writes our TOML, which [`Config::parse`] takes.
pub fn toml(json: &str) -> Result<String, ImportError> {
    let old = MesosDns::parse(json)?;
    let domain = domain(&old)?;
    let mut new = Draft::default();
    new.say(
        "Made by `mesozone import` from a configuration of mesos-dns. The comments say what has no \
         equal here and what was not safe.",
    );
    import_masters::write(&old, &mut new)?;
    zone(&old, &domain, &mut new)?;
    target(&domain, &mut new);
    match (old.dns_on.unwrap_or(true), old.http_on.unwrap_or(true)) {
        (false, false) => return Err(MesosDnsError::NothingOn.into()),
        (true, _) => import_server::write(&old, &domain, &mut new)?,
        (false, true) => {
            new.gap();
            new.say("DnsOn was false: there is no [server], and `run` needs a [[target]].");
        }
    }
    http(&old, &mut new)?;
    passed_over(&old, &mut new);
    Config::parse(new.text()).map_err(ImportError::Made)?;
    Ok(new.into_text())
}

fn domain(old: &MesosDns) -> Result<Name, MesosDnsError> {
    let text = old.domain.as_deref().unwrap_or("mesos");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let name = Some(text).filter(|text| text.chars().all(is_plain) && !text.ends_with('.'));
    let name = name.ok_or_else(|| format!("mesos-dns takes no domain {text:?}"));
    let name = name.and_then(Domain::read);
    // What is added to it by whoever serves it.
    let fits = |name: Name| match name.below([b"ns1".as_slice(), b"_mesozone"]) {
        Ok(_) => Ok(name),
        Err(error) => Err(format!("the domain leaves no room for names below it: {error}")),
    };
    name.and_then(fits).map_err(|why| wrong("Domain", why))
}

fn zone(old: &MesosDns, domain: &Name, new: &mut Draft) -> Result<(), MesosDnsError> {
    new.table("zone");
    new.key("domain", &quoted(&bare(domain)));
    match old.ttl {
        None => {}
        Some(ttl @ 0..) => new.key("ttl", &quoted(&format!("{ttl}s"))),
        Some(ttl) => new.say(&format!(
            "TTL, {ttl}, is no TTL, and went out as {}; the default is 60s.",
            ttl as u32
        )),
    }
    if let Some(sources) = &old.ip_sources {
        let known = ["netinfo", "docker", "mesos", "host"];
        let twice = (1..sources.len()).any(|at| sources[..at].contains(&sources[at]));
        if sources.is_empty() || twice || sources.iter().any(|word| !known.contains(&&**word)) {
            let why = "it is a list of netinfo, docker, mesos and host, none twice";
            return Err(wrong("IPSources", why));
        }
        new.key("ip_sources", &list(sources));
    }
    if let Some(enforced) = old.enforce_rfc952 {
        new.key("label_rules", if enforced { "\"rfc952\"" } else { "\"rfc1123\"" });
    }
    if let Some(weight) = old.srv_record_default_weight {
        new.key("srv_weight", &weight.to_string());
    }
    new.say(
        "As with mesos-dns, a task that fails its health check keeps its names. Without this line it \
         has none as long as healthy tasks share them.",
    );
    new.key("unhealthy", "\"publish\"");
    Ok(())
}

/// What it takes to publish into a name server, ready but for two values.
fn target(domain: &Name, new: &mut Draft) {
    new.gap();
    new.say(
        "Where BIND, Knot or PowerDNS is in charge: take the # from these lines, set the address of the \
         zone's primary, and delete [server]. `tsig-keygen mesozone` makes the key.",
    );
    let zone = quoted(&bare(domain));
    for line in [
        "[[target]]",
        "name = \"bind\"",
        "server = \"10.0.0.53:53\"",
        &format!("zone = {zone}"),
        "tsig_key_file = \"/etc/mesozone/bind.key\"",
    ] {
        new.off(line);
    }
}

fn http(old: &MesosDns, new: &mut Draft) -> Result<(), MesosDnsError> {
    if !old.http_on.unwrap_or(true) {
        return Ok(());
    }
    // An empty one is every address, too.
    let listener = old.http_listener.as_deref().filter(|text| !text.is_empty());
    let listener = listener.unwrap_or("0.0.0.0");
    let port = u16::try_from(old.http_port.unwrap_or(8123)).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| wrong("HttpPort", "it is no port"))?;
    new.table("http");
    let address: IpAddr = listener.parse().unwrap_or_else(|_| {
        new.say(&format!("HTTPListener, {listener:?}, is no IP address."));
        Ipv4Addr::LOCALHOST.into()
    });
    new.key("listen", &quoted(&SocketAddr::new(address, port).to_string()));
    if !address.is_loopback() {
        new.say(
            "As with mesos-dns, whoever reaches this address reads the whole zone and the state of \
             this program, though no secret; 127.0.0.1 shuts others out.",
        );
    }
    if old.enumeration_on == Some(false) {
        new.say("EnumerationOn has no equal: /v1/axfr and /v1/enumerate are always there.");
    }
    new.off("token_file = \"/etc/mesozone/token\" # lets who shows it approve what is held");
    Ok(())
}

fn passed_over(old: &MesosDns, new: &mut Draft) {
    if old.file.is_some() {
        new.say("File has no equal: mesos-dns only showed it.");
    }
    for key in &old.unknown {
        new.say(&format!("{key:?} is no key of mesos-dns: it was ignored there, and is here."));
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A configuration with these members more.
    fn with(more: Value) -> String {
        let mut whole = json!({ "Masters": ["10.0.0.1:5050"] });
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        whole.to_string()
    }

    #[track_caller]
    fn made(more: Value) -> Config {
        Config::parse(&toml(&with(more)).unwrap()).unwrap()
    }

    /// Whole lines.
    #[track_caller]
    fn check(more: Value, lines: &[&str]) {
        let made = toml(&with(more)).unwrap();
        for line in lines {
            assert!(made.lines().any(|have| have == *line), "no {line} in\n{made}");
        }
    }

    #[track_caller]
    fn check_refused(more: Value, message: &str) {
        assert_eq!(toml(&with(more)).unwrap_err().to_string(), message);
    }

    #[test]
    fn the_defaults_of_mesos_dns_are_kept_where_ours_are_others() {
        let config = made(json!({}));
        assert_eq!(config.rules.unhealthy, crate::records::Unhealthy::Publish);
        let server = config.server.unwrap();
        assert_eq!(server.listen, ["0.0.0.0:53".parse().unwrap()]);
        let asked: Vec<_> = server.forwarding.upstreams.into_values().flatten().collect();
        assert_eq!(asked, ["8.8.8.8:53".parse().unwrap()]);
    }

    #[test]
    fn zookeeper_replaces_the_masters() {
        let zk = |zk: &str| json!({ "Zk": zk });
        let both = r#"#masters = ["zk://a:2181,b:1/mesos", "http://10.0.0.1:5050"]"#;
        check(zk("zk://a,b:1/mesos/"), &[r#"masters = ["zk://a:2181,b:1/mesos"]"#, both]);
        check(zk("leader@10.0.0.9:5050"), &[r#"masters = ["http://10.0.0.9:5050"]"#]);
        let file = "Zk: it names a file; write here what stands in the file, and import again";
        check_refused(zk("file:///etc/mesos/zk"), file);
        let path = "Zk: \"zk://a:2181/\" has no path: write it as \
                    zk://10.0.0.1:2181,10.0.0.2:2181/mesos";
        check_refused(zk("zk://a:2181"), path);
    }

    #[test]
    fn what_mesos_dns_refuses_is_told_by_its_key() {
        let sources = "IPSources: it is a list of netinfo, docker, mesos and host, none twice";
        check_refused(json!({ "IPSources": [] }), sources);
        check_refused(json!({ "IPSources": ["rkt"] }), sources);
        check_refused(json!({ "IPSources": ["host", "host"] }), sources);
        check_refused(json!({ "Masters": ["10.0.0.1"] }), "Masters: entry 1 is no host:port");
        let twice = json!({ "Masters": ["[::1]:5050", "[0:0::1]:5050"] });
        check_refused(twice, "Masters: entry 2 is there twice");
        check_refused(json!({ "Listener": "eth0" }), "Listener: it is no IP address");
        check_refused(json!({ "Port": 65536 }), "Port: it is no port");
        let dot = "Domain: mesos-dns takes no domain \"mesos.\"";
        check_refused(json!({ "Domain": "mesos." }), dot);
        let resolver = "Resolvers: \"ns.example\" is neither ip nor ip:port";
        check_refused(json!({ "Resolvers": ["ns.example"] }), resolver);
        let zone = "ZoneResolvers: \"a.mesos\" is the domain, inside it or above it, and mesos-dns \
                    refuses that";
        check_refused(json!({ "ZoneResolvers": { "a.mesos": ["10.0.0.3"] } }), zone);
        check_refused(json!({ "CertFile": "c" }), "KeyFile: it goes with CertFile, which is given");
        let mechanism = "MesosAuthentication: it is neither \"basic\" nor \"iam\"";
        check_refused(json!({ "MesosAuthentication": "Basic" }), mechanism);
        let refresh = "RefreshSeconds: mesos-dns ends at once with 0 or less";
        check_refused(json!({ "RefreshSeconds": 0 }), refresh);
        let long = json!({ "StateTimeoutSeconds": i64::MAX });
        check_refused(long, "StateTimeoutSeconds: it is too long");
        let on = "DnsOn and HttpOn are both false: mesos-dns does not start with this";
        check_refused(json!({ "DnsOn": false, "HttpOn": false }), on);
        let none = "neither Masters nor Zk says where the masters are: mesos-dns does not start with \
                    this";
        check_refused(json!({ "Masters": [] }), none);
        let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].join(".");
        let room = "Domain: the domain leaves no room for names below it: name of 259 octets, 255 is \
                    the limit";
        check_refused(json!({ "Domain": long }), room);
    }

    #[test]
    fn what_mesos_dns_took_and_we_do_not_is_left_out() {
        let itself = json!({ "Resolvers": ["127.0.0.1", "0.0.0.0:54"], "Listener": "127.0.0.1" });
        check(itself, &["forward = []"]);
        let zone = json!({ "ZoneResolvers": { "weave": ["0.0.0.0"] }, "Resolvers": [] });
        assert!(made(zone).server.unwrap().forwarding.is_off());
        assert_eq!(made(json!({ "TTL": -1 })).rules.ttl, crate::rr::Ttl::from_secs(60));
        let names = json!({ "SOAMname": "ns..mesos", "SOARname": "a..b" });
        check(names, &["# SOARname, \"a..b\", is no name."]);
    }

    #[test]
    fn certificates_are_for_masters_asked_over_tls() {
        let files = json!({ "CACertFile": "ca", "Zk": "zk://a/mesos" });
        assert_eq!(made(files.clone()).mesos.tls.ca_file, None, "https would be tried then");
        let mut secured = files;
        secured["MesosHTTPSOn"] = json!(true);
        assert_eq!(made(secured).mesos.tls.ca_file, Some("ca".into()));
    }

    #[test]
    fn the_target_that_is_ready_makes_a_purpose() {
        let text = toml(&with(json!({ "DnsOn": false }))).unwrap();
        let config = Config::parse(&text).unwrap();
        assert!(config.server.is_none() && config.check_purpose().is_err());
        let (before, after) = text.split_once("#[[target]]").unwrap();
        let (block, after) = after.split_once("\n\n").unwrap();
        let block = block.replace("\n#", "\n");
        let config = Config::parse(&format!("{before}[[target]]{block}\n\n{after}")).unwrap();
        assert_eq!(config.targets[0].name, "bind");
        config.check_purpose().unwrap();
    }

    /// What an error says with all of its causes.
    fn words(error: &(dyn Error + 'static)) -> String {
        let (mut words, mut cause) = (error.to_string(), error.source());
        while let Some(error) = cause {
            words += &format!(": {error}");
            cause = error.source();
        }
        words
    }

    const HOSTILE: [&str; 12] = [
        "",
        "a b\n[zone]\nttl = \"1s\"\n",
        "\"]\nttl = 1",
        "'''\"\"\"\\",
        "\u{85}\u{2028}\u{202e}\u{0}\u{7f}\r",
        "10.0.0.1:5050",
        "zk://u:p/w@[::1]/a\n#@b",
        "[::1]:53",
        "127.0.0.1",
        "0.0.0.0",
        "basic",
        "mesos",
    ];

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![proptest::sample::select(&HOSTILE[..]).prop_map(str::to_owned), ".{0,12}"]
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            4 => text().prop_map(Value::from),
            4 => prop_oneof![any::<i64>(), -2..70_000_i64].prop_map(Value::from),
            2 => any::<bool>().prop_map(Value::from),
            1 => Just(Value::Null),
            2 => proptest::collection::vec(text(), 0..3).prop_map(Value::from),
            1 => (text(), text()).prop_map(|(zone, server)| json!({ zone: [server] })),
        ]
    }

    fn members() -> impl Strategy<Value = serde_json::Map<String, Value>> {
        let keys = crate::mesos_dns::KEYS.iter().copied();
        let keys: Vec<&str> = keys.chain(["ns", "email", "a\n[b]\n"]).collect();
        let key = proptest::sample::select(keys).prop_map(str::to_owned);
        let members = proptest::collection::vec((key, value()), 0..6);
        members.prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_made_is_a_configuration_whatever_is_read(members in members()) {
            match toml(&with(Value::Object(members))) {
                Ok(text) => prop_assert!(Config::parse(&text).is_ok()),
                Err(error) => {
                    prop_assert!(!matches!(error, ImportError::Made(_)), "{}", words(&error));
                }
            }
        }

        #[test]
        fn what_a_comment_repeats_stays_in_the_comment(text in text()) {
            let bare = toml(&with(json!({}))).unwrap();
            let iam = json!({ "IAMConfigFile": text, "File": text });
            for more in [json!({ format!("x{text}"): 1 }), iam] {
                let made = toml(&with(more)).unwrap();
                let read = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
                prop_assert_eq!(read(&made), read(&bare));
                prop_assert!(made.chars().all(|c| c == '\n' || !c.is_control()));
            }
            let listener = format!("x{text}");
            let made = toml(&with(json!({ "HTTPListener": listener }))).unwrap();
            prop_assert!(made.contains("\nlisten = \"127.0.0.1:8123\"\n"), "{made}");
            prop_assert!(made.chars().all(|c| c == '\n' || !c.is_control()));
        }

        #[test]
        fn no_secret_is_in_what_is_made_or_said(members in members(), mechanism in 0..3_usize) {
            let mechanism = ["", "basic", "iam"][mechanism];
            let mut whole = json!({
                "Zk": "zk://dns:hunter2@10.0.0.1:2181/mesos",
                "MesosCredentials": { "Principal": "dns", "Secret": "correct horse" },
                "MesosAuthentication": mechanism,
            });
            whole.as_object_mut().unwrap().extend(members);
            let said = toml(&whole.to_string()).unwrap_or_else(|error| words(&error));
            prop_assert!(!said.contains("hunter2") && !said.contains("correct horse"), "{said}");
        }
    }

    #[test]
    fn a_password_is_not_repeated_where_an_address_is_misspelled() {
        for zk in [
            "zk://dns:hun/ter2@10.0.0.1/mesos",
            "zk://dns:hunter2@/mesos",
            "zk://dns:hunter2@10.0.0.1",
            "dns:hunter2@10.0.0.1",
            "ZK://dns:hunter2@10.0.0.1:2181/mesos",
            "zk:/dns:hunter2@10.0.0.1:2181",
        ] {
            let said = toml(&with(json!({ "Zk": zk }))).unwrap_or_else(|error| words(&error));
            assert!(!said.contains("ter2"), "{said}");
        }
        let master = json!({ "Masters": ["dns:hunter2@10.0.0.1:5050"] });
        assert!(!words(&toml(&with(master)).unwrap_err()).contains("hunter2"));
    }
}
