//! Where the masters are and how they are asked, out of a configuration of mesos-dns: our `[mesos]`.

use crate::cluster::Endpoint;
use crate::draft::{Draft, list, quoted};
use crate::mesos_dns::{Credentials, MesosDns, MesosDnsError, wrong};
use crate::setting::{Interval, Scheme, Way, Word};

/// Where the files that hold secrets belong.
const SECRET_FILE: &str = "/etc/mesozone/secret";
const ZK_AUTH_FILE: &str = "/etc/mesozone/zookeeper";
const CA_FILE: &str = "/etc/mesozone/ca.pem";

pub(crate) fn write(old: &MesosDns, new: &mut Draft) -> Result<(), MesosDnsError> {
    new.table("mesos");
    masters(old, new)?;
    follow(old, new)?;
    auth(old, new)?;
    tls(old, new)
}

fn masters(old: &MesosDns, new: &mut Draft) -> Result<(), MesosDnsError> {
    let named = named_masters(old)?;
    let zk = old.zk.as_deref().unwrap_or_default();
    if zk.is_empty() {
        if named.is_empty() {
            return Err(MesosDnsError::NoMaster);
        }
        new.key("masters", &list(&named));
        return Ok(());
    }
    let (entry, userinfo) = match zk.strip_prefix("zk://") {
        Some(rest) => ensemble(rest)?,
        None => (standalone(zk, scheme(old))?, false),
    };
    if !named.is_empty() {
        let both: Vec<&String> = [&entry].into_iter().chain(&named).collect();
        new.say(
            "Masters counted until ZooKeeper's first answer and never again. Here both count; to have \
             them asked while ZooKeeper does not answer:",
        );
        new.off(&format!("masters = {}", list(&both)));
    }
    if !zk.starts_with("zk://") {
        new.say("Zk named one master; mesos-dns gave it the address 0.0.0.0 in master0.");
    }
    new.key("masters", &list(&[entry]));
    if userinfo {
        new.say(&format!(
            "Zk had a user and a password in clear{}. mesos-dns did not use them. Where the nodes cannot be \
             read without, put them as `user:password` into this file (chmod 600), better a new \
             password, and take the # from the line.",
            shown(old)
        ));
        new.off(&format!("zk_auth_file = {}", quoted(ZK_AUTH_FILE)));
    }
    Ok(())
}

/// Where mesos-dns shows secrets, too.
fn shown(old: &MesosDns) -> &'static str {
    match old.http_on {
        Some(false) => "",
        _ => "; /v1/config of mesos-dns shows that to everybody",
    }
}

fn scheme(old: &MesosDns) -> Scheme {
    if old.mesos_https_on.unwrap_or(false) { Scheme::Https } else { Scheme::Http }
}

/// The entries of `Masters`. They are not repeated in errors: one could hold a password.
fn named_masters(old: &MesosDns) -> Result<Vec<String>, MesosDnsError> {
    let (mut entries, mut seen) = (Vec::new(), Vec::new());
    for (at, text) in old.masters.iter().flatten().enumerate() {
        let has_port = Endpoint::parse(text).and_then(|endpoint| endpoint.port);
        let entry = format!("{}://{text}", scheme(old));
        let master = match (has_port, Way::read(&entry)) {
            (Some(1..), Ok(Way::Master(master))) => master,
            _ => return Err(wrong("Masters", format!("entry {} is no host:port", at + 1))),
        };
        if seen.contains(&master) {
            return Err(wrong("Masters", format!("entry {} is there twice", at + 1)));
        }
        seen.push(master);
        entries.push(entry);
    }
    Ok(entries)
}

/// What follows `zk://`, without user and password; and whether there were any.
fn ensemble(rest: &str) -> Result<(String, bool), MesosDnsError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, servers) = match authority.rsplit_once('@') {
        Some((userinfo, servers)) => (Some(userinfo), servers),
        None => (None, authority),
    };
    match Way::read(&format!("zk://{servers}/{path}")) {
        Ok(Way::Ensemble(ensemble)) => Ok((ensemble.to_string(), userinfo.is_some())),
        Err(why) if userinfo.is_none() => Err(wrong("Zk", why)),
        // Part of the password may stand where the path is.
        _ => Err(wrong("Zk", "it is not as zk://user:password@10.0.0.1:2181,10.0.0.2:2181/mesos")),
    }
}

/// `[name@]ip:port`, one master without an election.
fn standalone(zk: &str, scheme: Scheme) -> Result<String, MesosDnsError> {
    if zk.starts_with("file://") {
        let why = "it names a file; write here what stands in the file, and import again";
        return Err(wrong("Zk", why));
    }
    let address = zk.rsplit_once('@').map_or(zk, |(_, address)| address);
    match Endpoint::parse(address).and_then(|endpoint| endpoint.port) {
        Some(1..) if Way::read(&format!("{scheme}://{address}")).is_ok() => {
            Ok(format!("{scheme}://{address}"))
        }
        _ => Err(wrong("Zk", "it is neither zk://host:port,.../path nor ip:port")),
    }
}

fn follow(old: &MesosDns, new: &mut Draft) -> Result<(), MesosDnsError> {
    if let Some(seconds) = old.refresh_seconds {
        if seconds <= 0 {
            return Err(wrong("RefreshSeconds", "mesos-dns ends at once with 0 or less"));
        }
        if Interval::read(&format!("{seconds}s")).is_err() {
            return Err(wrong("RefreshSeconds", "it is too long"));
        }
        new.say(&format!(
            "RefreshSeconds, {seconds}: `run` follows the masters' events, and a name is there \
             milliseconds after its task; where a master refuses them, it reads the state every 10s. To \
             have it read again and again from the start, as by mesos-dns:"
        ));
        new.off("watch = \"poll\"");
        new.off(&format!("poll_interval = \"{seconds}s\""));
    }
    match old.state_timeout_seconds {
        None => {}
        Some(..=0) => {
            return Err(wrong("StateTimeoutSeconds", "mesos-dns does not start with 0 or less"));
        }
        // Samples spell it out, and nobody wants it for a master that is gone.
        Some(300) => new.say(
            "StateTimeoutSeconds, 300, was for an answer as a whole; `timeout` is to connect and for \
             each silence, and 30s are enough for an answer of any size.",
        ),
        Some(seconds) => {
            let timeout = format!("{seconds}s");
            // Beyond the milliseconds that we count.
            if Interval::read(&timeout).is_err() {
                return Err(wrong("StateTimeoutSeconds", "it is too long"));
            }
            new.say(
                "StateTimeoutSeconds was for an answer as a whole; this is to connect and for each \
                 silence.",
            );
            new.key("timeout", &quoted(&timeout));
        }
    }
    if old.zk_detection_timeout.is_some() {
        new.say(
            "ZkDetectionTimeout has no equal: mesozone does not end because nobody leads, it keeps \
             the names that it knows.",
        );
    }
    Ok(())
}

fn auth(old: &MesosDns, new: &mut Draft) -> Result<(), MesosDnsError> {
    let none = Credentials::default();
    let credentials = old.mesos_credentials.as_ref().unwrap_or(&none);
    let mechanism = old.mesos_authentication.as_deref().unwrap_or_default();
    if !["", "basic", "iam"].contains(&mechanism) {
        return Err(wrong("MesosAuthentication", "it is neither \"basic\" nor \"iam\""));
    }
    if mechanism == "basic" && *credentials == none {
        return Err(wrong("MesosCredentials", "\"basic\" needs Principal and Secret"));
    }
    if !credentials.secret.is_empty() {
        new.say(&format!(
            "MesosCredentials had the secret in clear{}. Better make a new one; it is not in this file.",
            shown(old)
        ));
    }
    if mechanism == "basic" {
        new.say(&format!("Put the secret, and nothing else, into {SECRET_FILE} (chmod 600)."));
        if scheme(old) == Scheme::Http {
            new.say("MesosHTTPSOn is off: the secret goes to the masters in clear.");
        }
        let (principal, file) = (quoted(&credentials.principal), quoted(SECRET_FILE));
        new.key("auth", &format!("{{ principal = {principal}, secret_file = {file} }}"));
    } else if *credentials != none {
        new.say("MesosCredentials were not used, since MesosAuthentication is not \"basic\".");
    }
    let iam = old.iam_config_file.as_deref().filter(|path| !path.is_empty());
    if mechanism == "iam" || iam.is_some() {
        new.say(&format!(
            "IAMConfigFile, {:?}, has no equal: mesozone logs in nowhere. It sends an Authorization \
             header that something else keeps in a file, `token=...` as a whole:",
            iam.unwrap_or_default()
        ));
        new.off("auth = { header_file = \"/etc/mesozone/header\" }");
    }
    Ok(())
}

fn tls(old: &MesosDns, new: &mut Draft) -> Result<(), MesosDnsError> {
    let given = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let (ca, cert, key) = (given(&old.ca_cert_file), given(&old.cert_file), given(&old.key_file));
    match (&cert, &key) {
        (Some(_), None) => return Err(wrong("KeyFile", "it goes with CertFile, which is given")),
        (None, Some(_)) => return Err(wrong("CertFile", "it goes with KeyFile, which is given")),
        _ => {}
    }
    if scheme(old) == Scheme::Http {
        if ca.is_some() || cert.is_some() {
            new.say(
                "CACertFile, CertFile and KeyFile are for MesosHTTPSOn, which is off: the masters are \
                 asked in clear.",
            );
        }
        return Ok(());
    }
    if ca.is_none() {
        new.say(&format!(
            "MesosHTTPSOn without CACertFile: mesos-dns took any certificate for that of a master. \
             Put the authority that signed the masters' into {CA_FILE}."
        ));
    }
    let mut tls = format!("ca_file = {}", quoted(ca.as_deref().unwrap_or(CA_FILE)));
    if let (Some(cert), Some(key)) = (cert, key) {
        tls += &format!(", cert_file = {}, key_file = {}", quoted(&cert), quoted(&key));
    }
    new.say("Certificates of masters found in ZooKeeper have to name their addresses.");
    new.key("tls", &format!("{{ {tls} }}"));
    Ok(())
}
