//! What the instances of one app have in common.  An app's features follow from its number, so
//! that every mix of them occurs among the first few.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::random::Random;

/// The manner of a framework: how it names tasks and what it says about them.
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    #[default]
    Marathon,
    Chronos,
    Aurora,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Marathon, Kind::Chronos, Kind::Aurora];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Marathon => "marathon",
            Kind::Chronos => "chronos",
            Kind::Aurora => "aurora",
        }
    }
}

/// Where an instance listens.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Network {
    /// On the agent's address, at a port of the agent.
    Host,
    /// On an address of its own, reached through ports of the agent.
    Bridge,
    /// On an address of its own, at ports of its own.
    User,
}

pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    number: usize,
}

const WORDS: [&str; 16] = [
    "search", "checkout", "cart", "billing", "catalog", "gateway", "mailer", "images", "session",
    "pricing", "stock", "reviews", "ranking", "metrics", "ledger", "archive",
];
const GROUPS: [&str; 5] = ["shop", "media", "core", "data", "edge"];
const CONTAINER_PORTS: [u16; 2] = [8080, 9090];

impl App {
    /// The app of this number; Marathon's first is `search`.
    pub(crate) fn numbered(kind: Kind, number: usize) -> App {
        let round = number / WORDS.len();
        let word = WORDS[number % WORDS.len()];
        let word = if round == 0 { word.to_owned() } else { format!("{word}-{round}") };
        let name = match kind {
            Kind::Marathon if number % 3 == 2 => {
                format!("{word}.{}", GROUPS[number % GROUPS.len()])
            }
            Kind::Marathon => word,
            Kind::Chronos => format!("ChronosTask:{word}"),
            Kind::Aurora => format!("www-data/prod/{word}"),
        };
        App { name, kind, number }
    }

    /// An app with the features of the first: two ports on the agent, discovery, a health check.
    pub(crate) fn named(kind: Kind, name: &str) -> App {
        App { name: name.to_owned(), kind, number: 0 }
    }

    pub(crate) fn instances(&self) -> usize {
        [3, 2, 8, 1, 1, 4, 2, 5][self.number % 8]
    }

    pub(crate) fn network(&self) -> Network {
        match (self.kind, self.number % 4) {
            (Kind::Marathon, 1) => Network::User,
            (Kind::Marathon, 3) | (Kind::Aurora, 1 | 3) => Network::Bridge,
            _ => Network::Host,
        }
    }

    /// How many ports of its agent an instance takes.
    pub(crate) fn agent_ports(&self) -> usize {
        match (self.kind, self.network()) {
            (Kind::Chronos, _) | (_, Network::User) => 0,
            _ => self.port_count(),
        }
    }

    fn port_count(&self) -> usize {
        if self.number.is_multiple_of(3) { 2 } else { 1 }
    }

    /// Whether one health check in twenty fails.
    pub(crate) fn can_fail(&self) -> bool {
        self.number != 0
    }

    pub(crate) fn is_checked(&self) -> bool {
        self.kind == Kind::Marathon && self.number % 5 < 2
    }

    pub(crate) fn cpus(&self) -> f64 {
        0.1 * (1 + self.number % 3) as f64
    }

    pub(crate) fn mem(&self) -> f64 {
        (32 << (self.number % 4)) as f64
    }

    pub(crate) fn task_id(&self, random: &mut Random) -> String {
        let uuid = random.uuid();
        match self.kind {
            Kind::Marathon => {
                let path: Vec<_> = self.name.rsplit('.').collect();
                format!("{}.instance-{uuid}._app.1", path.join("_"))
            }
            Kind::Chronos => {
                let job = self.name.trim_start_matches("ChronosTask:");
                format!("ct:{}:0:{job}:", 1_790_000_000_000 + random.below(1_000_000_000))
            }
            Kind::Aurora => format!("{}-0-{uuid}", self.name.replace('/', "-")),
        }
    }

    pub(crate) fn labels(&self) -> Vec<Value> {
        let label = |key: &str, value: &str| json!({"key": key, "value": value});
        match self.kind {
            Kind::Chronos => vec![],
            Kind::Aurora => vec![label("org.apache.aurora.tier", "preferred")],
            Kind::Marathon => vec![
                label("HAPROXY_GROUP", "external"),
                label("HAPROXY_0_VHOST", &format!("{}.apps.example", self.name)),
                label("HAPROXY_0_BACKEND_HTTP_HEALTHCHECK_OPTIONS", HEALTHCHECK_OPTIONS),
                label("VIP_0", &format!("/{}:80", self.name)),
                label("owner", "platform@example.org"),
                label("runbook", &format!("https://wiki.example.org/runbooks/{}", self.name)),
                label("source", &format!("https://git.example.org/platform/{}.git", self.name)),
            ],
        }
    }

    pub(crate) fn discovery(&self, ports: &[u16]) -> Option<Value> {
        let name = match self.kind {
            Kind::Chronos => return None,
            Kind::Aurora => self.name.rsplit('/').collect::<Vec<_>>().join("."),
            Kind::Marathon => self.name.clone(),
        };
        if self.number % 16 == 15 {
            return None;
        }
        let own = &CONTAINER_PORTS[..self.port_count()];
        let numbers = if self.network() == Network::User { own } else { ports };
        let mut discovery = json!({"visibility": "FRAMEWORK", "name": name, "environment": "prod",
            "location": "eu-west", "ports": {"ports": self.discovery_ports(numbers)}});
        if self.kind == Kind::Aurora {
            discovery["visibility"] = "CLUSTER".into();
        } else {
            discovery["version"] = "1.4.2".into();
            discovery["labels"] = json!({"labels": [{"key": "tier", "value": "front"}]});
        }
        Some(discovery)
    }

    fn discovery_ports(&self, numbers: &[u16]) -> Vec<Value> {
        let named = |(&number, name)| json!({"number": number, "name": name, "protocol": "tcp"});
        let mut ports: Vec<Value> = numbers.iter().zip(["http", "admin"]).map(named).collect();
        if let (Kind::Marathon, Some(first)) = (self.kind, ports.first_mut()) {
            let vip = format!("/{}:80", self.name);
            first["visibility"] = "EXTERNAL".into();
            first["labels"] = json!({"labels": [{"key": "VIP_0", "value": vip}]});
        }
        ports
    }

    /// The name of the network an address of its own is on.
    pub(crate) fn network_name(&self) -> Option<&'static str> {
        match (self.kind, self.network()) {
            (Kind::Marathon, Network::User) => Some("calico"),
            (Kind::Aurora, Network::Bridge) => Some("net"),
            _ => None,
        }
    }

    pub(crate) fn container(&self, ports: &[u16]) -> Option<Value> {
        if self.kind != Kind::Marathon || self.number % 4 == 2 {
            return None;
        }
        let mapping = |(host, container)| json!({"host_port": host, "container_port": container, "protocol": "tcp"});
        let network = match self.network() {
            Network::Host => "HOST",
            Network::Bridge => "BRIDGE",
            Network::User => "USER",
        };
        let image = format!("registry.example.org/platform/{}:1.4.2", self.name);
        let mut container = json!({"type": "DOCKER", "docker": {"image": image,
            "network": network, "privileged": false, "force_pull_image": false}});
        match self.network() {
            Network::Host => {}
            Network::Bridge => {
                let mappings = ports.iter().zip(CONTAINER_PORTS).map(mapping);
                container["docker"]["port_mappings"] = mappings.collect();
            }
            Network::User => {
                let numbers = CONTAINER_PORTS[..self.port_count()].iter();
                container["network_infos"] = json!([{"name": self.network_name(),
                    "labels": {"labels": [{"key": "app", "value": self.name}]},
                    "port_mappings": numbers.map(|port| mapping((port, *port)))
                        .collect::<Vec<_>>()}]);
            }
        }
        Some(container)
    }

    pub(crate) fn health_check(&self) -> Option<Value> {
        self.is_checked().then(|| {
            json!({"delay_seconds": 0.5, "interval_seconds": 4.0, "timeout_seconds": 20.0,
            "consecutive_failures": 3, "grace_period_seconds": 2.0, "type": "COMMAND",
            "command": {"shell": true, "value": "curl -fsS http://$HOST:$PORT0/health"}})
        })
    }
}

const HEALTHCHECK_OPTIONS: &str = "  option httpchk GET /health HTTP/1.1\\r\\nHost:\\ apps.example\n  \
    timeout check 10s\n  http-check expect status 200\n";
