//! mesozone keeps a DNS zone equal to what runs on an Apache Mesos cluster.
//!
//! Data flows one way: a master's state is read into a cluster, the cluster makes records, the
//! records make a zone, the zone is published as one snapshot, and everybody follows the snapshot:
//! each target by comparing it with what its server has, the bundled server by answering from it.
//!
//! The modules in the order of knowledge: a file uses only files above it. Pure ones first,
//! plain functions on values:
//!
//! - [`name`]: domain names in the order of a zone
//! - [`rr`]: types, TTLs, serials, data, RRsets
//! - [`reverse`]: names of addresses
//! - [`wire`]: the DNS message, read and written
//! - [`zone`]: RRsets in a persistent ordered map
//! - [`tsig`]: signatures, RFC 8945
//! - [`glob`]: texts with a star for any run
//! - [`countersign`]: a server's side of them
//! - [`cluster`]: agents, frameworks and tasks
//! - [`splitter`]: long lists out of JSON as it arrives
//! - [`recordio`]: the framing of an event stream
//! - [`mesos`]: agents, frameworks and masters in JSON
//! - [`task`]: tasks in JSON
//! - [`election`]: ZooKeeper's nodes into who leads
//! - [`state`]: a master's whole state as it arrives
//! - [`events`]: an event stream as it arrives
//! - [`label`]: texts into labels
//! - [`selection`]: which frameworks and tasks have names
//! - [`chosen`]: names that tasks choose
//! - [`records`]: which records a cluster makes
//! - [`unknown`]: names that wait for a host name to be resolved
//! - [`tally`]: contributions to a zone, counted
//! - [`pointers`]: reverse zones, less what agents hide
//! - [`catalog`]: a changed cluster into a changed zone
//! - [`snapshot`]: what is published, and whether its gaps are believed
//! - [`live`]: the cluster as events change it
//! - [`fence`]: the record that says who publishes
//! - [`scope`]: which RRsets are ours
//! - [`current`]: what a server has
//! - [`cut`]: RRsets larger than a server takes
//! - [`mark`]: how much may go at once
//! - [`held`]: removals that wait for an approval
//! - [`quarantine`]: names that a server refuses
//! - [`plan`]: what would change, and what of it may
//! - [`report`]: plans for people and programs
//! - [`health`]: how a target fares
//! - [`overview`]: everything that is known at one moment
//! - [`findings`]: what a check found, a line each
//! - [`shown`]: texts of others on the page, harmless and short
//! - [`verdict`]: what is wrong at one moment, and what to do
//! - [`update`]: approved changes into messages, RFC 2136
//! - [`pace`]: how many messages at a time
//! - [`transfer`]: AXFR and IXFR
//! - [`reading`]: what a transfer tells of our space
//! - [`drift`]: what others change in our space
//! - [`probe`]: questions that tell rights and clocks, and change nothing
//! - [`network`]: networks of addresses
//! - [`cookie`]: DNS cookies, RFC 7873
//! - [`limit`]: how many answers a network of clients gets
//! - [`index`]: the names that exist, found by their hash
//! - [`edition`]: zones as secondaries get them
//! - [`served`]: what the bundled server answers from
//! - [`answer`]: a question into its answer
//! - [`forwarding`]: questions about names outside our zones, and their answers
//! - [`outgoing`]: transfers to secondaries
//! - [`setting`]: how single values of the configuration are written
//! - [`config`]: the configuration
//! - [`written`]: how it is written, in TOML
//! - [`mesos_dns_http`]: the answers of the HTTP API of mesos-dns
//! - [`card`]: a target on the page, and what it holds back
//! - [`searched`]: a name looked up, here and there
//! - [`page`]: the page for people
//! - [`mesos_dns`]: the configuration of mesos-dns
//! - [`draft`]: a configuration while it is being written
//! - [`import_masters`]: where the masters are, out of one of mesos-dns
//! - [`import_server`]: what is answered, out of one of mesos-dns
//! - [`import`]: a configuration of mesos-dns into ours
//! - [`diagnosis`]: what was seen into findings
//!
//! Then the shells, which own sockets, clocks and files:
//!
//! - [`metrics`]: what is counted
//! - [`secret`]: secrets from files and the environment
//! - [`resolve`]: addresses of host names
//! - [`zookeeper`]: following the election in ZooKeeper
//! - [`candidacy`]: standing for election there
//! - [`http`]: the clients that ask the masters
//! - [`stream`]: one subscription to a master's events
//! - [`masters`]: whoever of them leads
//! - [`watch`]: what they tell into snapshots
//! - [`course`]: what they are asked next, and when
//! - [`follow`]: readings, events and polls in their order
//! - [`tls`]: whom a target trusts
//! - [`connection`]: one connection to a name server, over TCP or TLS
//! - [`target`]: one zone on one name server
//! - [`mirror`]: reading that zone, and verifying it
//! - [`publish`]: carrying out a plan there
//! - [`sift`]: finding the names that a server refuses
//! - [`pass`]: reading, planning, writing and verifying once
//! - [`shares`]: room that clients share
//! - [`forward`]: asking other servers for the bundled one's clients
//! - [`answering`]: what all sockets of the bundled server share
//! - [`datagrams`]: answering over UDP
//! - [`streams`]: answering over TCP
//! - [`notify`]: telling secondaries of changes
//! - [`server`]: the bundled server's sockets, and the snapshots that it follows
//! - [`keep`]: making a target follow the snapshots
//! - [`kept`]: the targets that are kept
//! - [`lookup`]: what is known of one name
//! - [`streamed`]: long answers over HTTP
//! - [`refusal`]: why a request over HTTP has no other answer
//! - [`approval`]: letting go over HTTP what is held
//! - [`api`]: HTTP for people and programs
//! - [`supervisor`]: telling systemd how we are
//! - [`daemon`]: what `run` runs
//! - [`inspect`]: what a name server lets a target do
//! - [`canvass`]: what each master and election tells
//! - [`check`]: what `check` looks at
//! - [`console`]: what commands print
//! - [`once`]: the cluster read once, for a command
//! - [`cli`]: the commands
//!
//! What is deliberately absent: no pure file knows a socket, a clock, a log, a lock or a random
//! number; nothing below the command line knows that dry runs exist; no change can be sent to a
//! server that [`plan::approve`] did not let through; nothing is let go over HTTP without the token;
//! what a server has is never taken from what was sent to it without its word, and is read again
//! wherever that word is in doubt.

pub mod answer;
pub mod answering;
pub mod api;
pub mod approval;
pub mod candidacy;
pub mod canvass;
pub mod card;
pub mod catalog;
pub mod check;
pub mod chosen;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod console;
pub mod cookie;
pub mod countersign;
pub mod course;
pub mod current;
pub mod cut;
pub mod daemon;
pub mod datagrams;
pub mod diagnosis;
pub mod draft;
pub mod drift;
pub mod edition;
pub mod election;
pub mod events;
pub mod fence;
pub mod findings;
pub mod follow;
pub mod forward;
pub mod forwarding;
pub mod glob;
pub mod health;
pub mod held;
pub mod http;
pub mod import;
pub mod import_masters;
pub mod import_server;
pub mod index;
pub mod inspect;
pub mod keep;
pub mod kept;
pub mod label;
pub mod limit;
pub mod live;
pub mod lookup;
pub mod mark;
pub mod masters;
pub mod mesos;
pub mod mesos_dns;
pub mod mesos_dns_http;
pub mod metrics;
pub mod mirror;
pub mod name;
pub mod network;
pub mod notify;
pub mod once;
pub mod outgoing;
pub mod overview;
pub mod pace;
pub mod page;
pub mod pass;
pub mod plan;
pub mod pointers;
pub mod probe;
pub mod publish;
pub mod quarantine;
pub mod reading;
pub mod recordio;
pub mod records;
pub mod refusal;
pub mod report;
pub mod resolve;
pub mod reverse;
pub mod rr;
pub mod scope;
pub mod searched;
pub mod secret;
pub mod selection;
pub mod served;
pub mod server;
pub mod setting;
pub mod shares;
pub mod shown;
pub mod sift;
pub mod snapshot;
pub mod splitter;
pub mod state;
pub mod stream;
pub mod streamed;
pub mod streams;
pub mod supervisor;
pub mod tally;
pub mod target;
pub mod task;
pub mod tls;
pub mod transfer;
pub mod tsig;
pub mod unknown;
pub mod update;
pub mod verdict;
pub mod watch;
pub mod wire;
pub mod written;
pub mod zone;
pub mod zookeeper;
