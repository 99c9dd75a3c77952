//! What is answered and for whom, out of a configuration of mesos-dns: our `[server]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::draft::{Draft, bare, list, quoted};
use crate::forwarding::Forwarding;
use crate::mesos_dns::{MesosDns, MesosDnsError, wrong};
use crate::name::Name;
use crate::setting::{Domain, Seconds, Upstream, Word};

pub(crate) fn write(old: &MesosDns, domain: &Name, new: &mut Draft) -> Result<(), MesosDnsError> {
    new.table("server");
    let listen = address(("Listener", old.listener.as_deref()), ("Port", old.port.unwrap_or(53)))?;
    if listen.ip().is_unspecified() {
        new.say("Every address that the machine has at the start.");
    }
    // There `::` heard IPv4 as well.
    let v4 = (listen.ip() == Ipv6Addr::UNSPECIFIED).then(|| (Ipv4Addr::UNSPECIFIED, listen.port()));
    let v4 = v4.map(|v4| SocketAddr::from(v4).to_string());
    new.key("listen", &list(&v4.into_iter().chain([listen.to_string()]).collect::<Vec<_>>()));
    new.say(
        "mesos-dns limited nobody. Without this line a network of clients that show no DNS cookie gets \
         1000 answers a second over UDP, against floods.",
    );
    new.key("rate_limit", "0");
    name_server(old, domain, listen.ip(), new);
    soa(old, new);
    forward(old, domain, listen, new)?;
    if old.recurse_on.is_some() {
        new.say("RecurseOn has no equal: an answer says that recursion is there (RA) where it is.");
    }
    if old.set_truncate_bit.is_some() {
        new.say(
            "SetTruncateBit has no equal: a truncated answer always says so (TC), or clients would \
             take it for whole.",
        );
    }
    Ok(())
}

fn address(
    (key, ip): (&'static str, Option<&str>),
    (port_key, port): (&'static str, i64),
) -> Result<SocketAddr, MesosDnsError> {
    let ip: IpAddr =
        ip.unwrap_or("0.0.0.0").parse().map_err(|_| wrong(key, "it is no IP address"))?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    Ok(SocketAddr::new(ip, port.ok_or_else(|| wrong(port_key, "it is no port"))?))
}

fn name_server(old: &MesosDns, domain: &Name, listen: IpAddr, new: &mut Draft) {
    let Some(text) = &old.soa_mname else { return };
    let Ok(name) = Domain::read(text.trim_end_matches('.')) else {
        new.say(&format!("SOAMname, {text:?}, is no name; ns1 in the domain is the default."));
        return;
    };
    if !name.is_within(domain) {
        new.say("SOAMname is outside the domain: mesos-dns gave its address to nobody.");
    }
    // Without one, those that it listens on.
    let addresses = match listen.is_unspecified() || !name.is_within(domain) {
        true => Vec::new(),
        false => vec![listen.to_string()],
    };
    new.key("ns", &format!("{{ {} = {} }}", quoted(&bare(&name)), list(&addresses)));
}

fn soa(old: &MesosDns, new: &mut Draft) {
    let mut soa = Vec::new();
    if let Some(text) = &old.soa_rname {
        let rname = text.replace('@', ".");
        match Domain::read(rname.trim_end_matches('.')) {
            Ok(name) => soa.push(format!("rname = {}", quoted(&bare(&name)))),
            Err(_) => new.say(&format!("SOARname, {text:?}, is no name.")),
        }
    }
    for (key, ours, seconds) in [
        ("SOARefresh", "refresh", old.soa_refresh),
        ("SOARetry", "retry", old.soa_retry),
        ("SOAExpire", "expire", old.soa_expire),
        ("SOAMinttl", "negative_ttl", old.soa_min_ttl),
    ] {
        let Some(seconds) = seconds else { continue };
        let span = format!("{seconds}s");
        match Seconds::read(&span) {
            Ok(_) => soa.push(format!("{ours} = {}", quoted(&span))),
            Err(_) => new.say(&format!("{key}, {seconds}, is too long; the default is used.")),
        }
    }
    match old.soa_min_ttl {
        Some(_) => new.say(
            "mesos-dns ignored SOAMinttl, and a name that was missing stayed so for TTL; here \
             `negative_ttl` counts.",
        ),
        None => new.say(
            "A name that is missing may be remembered as missing for 10s (`negative_ttl`); mesos-dns \
             said TTL.",
        ),
    }
    if old.soa_serial.is_some() {
        new.say("SOASerial has no equal: mesos-dns overwrote it, and ours is Unix time, too.");
    }
    if !soa.is_empty() {
        new.key("soa", &format!("{{ {} }}", soa.join(", ")));
    }
}

fn forward(
    old: &MesosDns,
    domain: &Name,
    listen: SocketAddr,
    new: &mut Draft,
) -> Result<(), MesosDnsError> {
    if old.timeout.is_some() {
        new.say("Timeout has no equal: how long another server is waited for is fixed.");
    }
    if !old.external_on.unwrap_or(true) {
        if old.resolvers.is_some() || !old.zone_resolvers.is_empty() {
            new.say(
                "Resolvers and ZoneResolvers were not used, since ExternalOn is off; other names are \
                 refused.",
            );
        }
        new.key("forward", "[]");
        return Ok(());
    }
    let servers = match &old.resolvers {
        None => {
            new.say("Resolvers was not given, and mesos-dns asked 8.8.8.8.");
            vec!["8.8.8.8".to_owned()]
        }
        Some(given) if given.is_empty() => {
            new.say(
                "Resolvers was empty: mesos-dns asked the servers of /etc/resolv.conf. Write them here; \
                 until then other names are refused.",
            );
            Vec::new()
        }
        Some(given) => upstreams("Resolvers", given, listen, new)?,
    };
    let zones = zones(&old.zone_resolvers, domain, listen, new)?;
    new.key("forward", &list(&servers));
    if !zones.is_empty() {
        new.key("forward_zones", &format!("{{ {} }}", zones.join(", ")));
    }
    if !servers.is_empty() || !zones.is_empty() {
        let reach = if listen.ip().is_unspecified() { " on every address" } else { "" };
        new.say(&format!(
            "mesos-dns asked other servers for everybody{reach}: an open resolver where the Internet \
             reaches it. Here clients with a private address are served; add networks such as \
             \"192.0.2.0/24\", or \"any\" for what was."
        ));
        new.key("from", "[\"private\"]");
    }
    Ok(())
}

/// The servers of a list, less those that are no server or this one.
fn upstreams(
    key: &'static str,
    texts: &[String],
    listen: SocketAddr,
    new: &mut Draft,
) -> Result<Vec<String>, MesosDnsError> {
    let (mut kept, mut seen) = (Vec::new(), Vec::new());
    for text in texts {
        let bare = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
        let Ok(address) = bare.or_else(|_| text.parse()) else {
            return Err(wrong(key, format!("{text:?} is neither ip nor ip:port")));
        };
        if seen.contains(&address) {
            return Err(wrong(key, format!("{text:?} is there twice")));
        }
        seen.push(address);
        let upstreams = BTreeMap::from([(Name::root(), vec![address])]);
        let itself = Forwarding { upstreams, clients: Vec::new() }.own_address(&[listen]);
        if itself.is_some() {
            new.say(&format!(
                "{key}: {text:?} is left out, since it is this server itself, and questions would go \
                 in circles."
            ));
        } else if Upstream::read(text).is_err() {
            new.say(&format!("{key}: {text:?} is left out, since it is no server's address."));
        } else {
            kept.push(text.clone());
        }
    }
    Ok(kept)
}

/// The members of `forward_zones`.
fn zones(
    given: &BTreeMap<String, Vec<String>>,
    domain: &Name,
    listen: SocketAddr,
    new: &mut Draft,
) -> Result<Vec<String>, MesosDnsError> {
    let (mut zones, mut seen) = (Vec::new(), Vec::new());
    for (text, servers) in given {
        let fault = |why: &str| wrong("ZoneResolvers", format!("{text:?} {why}"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let plain = Some(text).filter(|text| text.chars().all(is_plain));
        let zone = plain.and_then(|text| Domain::read(text).ok());
        let zone = zone.ok_or_else(|| fault("is no domain"))?;
        if zone.is_within(domain) || domain.is_within(&zone) {
            return Err(fault("is the domain, inside it or above it, and mesos-dns refuses that"));
        }
        if servers.is_empty() {
            return Err(fault("has no resolver"));
        }
        if seen.contains(&zone) {
            return Err(fault("is there twice"));
        }
        let servers = upstreams("ZoneResolvers", servers, listen, new)?;
        if servers.is_empty() {
            new.say(&format!("ZoneResolvers: {text:?} is left out with its last server."));
        } else {
            zones.push(format!("{} = {}", quoted(&bare(&zone)), list(&servers)));
        }
        seen.push(zone);
    }
    Ok(zones)
}
