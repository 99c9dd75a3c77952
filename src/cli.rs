//! The command line: what each command asks of the library, and what it prints.

use std::collections::HashSet;
use std::fmt;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::check;
use crate::config::Config;
use crate::console::{Ending, complain, pretty, print, say, style};
use crate::daemon::{self, Signals};
use crate::fence::{Found, Owner};
use crate::findings::{self, Level};
use crate::held::{Approval, PlanId};
use crate::http;
use crate::import;
use crate::once::{Source, open, snapshot};
use crate::pass::{Order, Passed};
use crate::plan::Plan;
use crate::report::{self, About, Style};
use crate::rr::{Rdata, Ttl};
use crate::secret;
use crate::snapshot::Snapshot;
use crate::target::Target;
use crate::update::{self, FenceStep, Packer};
use crate::zone::Key;

const DEFAULT_CONFIGS: [&str; 2] = ["mesozone.toml", "/etc/mesozone/mesozone.toml"];

#[derive(Parser)]
#[command(name = "mesozone", version, about, long_about = None)]
/// Keeps a DNS zone equal to what runs on an Apache Mesos cluster.
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The configuration [default: mesozone.toml, then /etc/mesozone/mesozone.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say more on stderr; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How stderr is written.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Follow the cluster: watch, publish, serve.
    Run,
    /// Show what would change on each target, and change nothing. Exits 0 for nothing, 1 for
    /// changes, 2 for trouble.
    Diff {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        choice: Choice,
        #[arg(long, value_enum, default_value = "text")]
        format: DiffFormat,
    },
    /// Make the targets' zones equal to the cluster once, and exit: 0 done, 1 something is held, 2
    /// for trouble.
    Sync {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        choice: Choice,
        /// Release the held set of this id, as `diff` shows it, or what a saved `diff --format
        /// json` holds and is still held. Repeatable.
        #[arg(long, value_name = "ID|FILE")]
        approve: Vec<PathBuf>,
        /// Replace the fence of exactly this owner.
        #[arg(long, value_name = "OWNER", value_parser = Owner::parse)]
        take_over: Option<Owner>,
    },
    /// Say line by line what works, and change nothing. Exits 0 if all is well, 1 for warnings, 2
    /// for failures.
    Check {
        #[command(flatten)]
        choice: Choice,
    },
    /// Let go what a running `run` holds by this id, over its HTTP API. Exits 1 if nothing is held
    /// by it.
    Approve {
        /// As `diff`, the log and the page show it.
        id: PlanId,
    },
    /// Print the desired records.
    Records {
        #[command(flatten)]
        source: Source,
        #[arg(long, value_enum, default_value = "zone")]
        format: RecordsFormat,
    },
    /// Print the configuration that stands for one of mesos-dns, its `config.json`. Needs none of
    /// ours.
    Import {
        /// `-` for standard input.
        file: PathBuf,
    },
    /// Print what has a shell complete our command line. Needs no configuration.
    Completions { shell: Shell },
}

#[derive(Args)]
struct Choice {
    /// Only this target. Repeatable.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum DiffFormat {
    Text,
    Json,
    Nsupdate,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum RecordsFormat {
    Zone,
    Json,
    Tsv,
}

/// Runs the program; its result is the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli);
    let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = ended.context("starting").and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        // A look-up that the system's resolver still waits for is not waited for.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(ending) => ending.into(),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn start_log(cli: &Cli) {
    let level = match (cli.verbose, &cli.command) {
        (0, Command::Run) => "mesozone=info",
        // What would be a warning is a line of its result.
        (0, Command::Check { .. }) => "mesozone=error",
        (0, _) => "mesozone=warn",
        (1, Command::Run) => "mesozone=debug",
        (1, _) => "mesozone=info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(coloured);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run(cli: Cli) -> Result<Ending> {
    let path = || configuration(cli.config.as_deref());
    let config = || load(path()?);
    match cli.command {
        Command::Run => run_daemon(path()?, config()?).await,
        Command::Approve { id } => approve(&config()?, id).await,
        Command::Diff { source, choice, format } => {
            diff(&config()?, &source, &choice, format).await
        }
        Command::Sync { source, choice, approve, take_over } => {
            let config = config()?;
            let approve = approve.iter().map(|word| Approve::read(word)).collect::<Result<_>>()?;
            sync(&config, &source, &choice, &Asked { approve, take_over }).await
        }
        Command::Check { choice } => check(path()?, &config()?, &choice).await,
        Command::Records { source, format } => {
            let snapshot = snapshot(&config()?, &source).await?;
            print_records(&snapshot, format)?;
            // To free a large zone piece by piece takes long, and the process ends here.
            std::mem::forget(snapshot);
            Ok(Ending::Well)
        }
        Command::Import { file } => {
            let (name, from) = open(&file)?;
            let about = || format!("importing {name}");
            let json = std::io::read_to_string(from).with_context(about)?;
            say(&import::toml(&json).with_context(about)?)?;
            Ok(Ending::Well)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mesozone", &mut script);
            print(|out| out.write_all(&script))?;
            Ok(Ending::Well)
        }
    }
}

fn configuration(path: Option<&Path>) -> Result<&Path> {
    match path {
        Some(path) => Ok(path),
        None => {
            DEFAULT_CONFIGS.iter().map(Path::new).find(|path| path.exists()).with_context(|| {
                format!("no configuration: neither {}", DEFAULT_CONFIGS.join(" nor "))
            })
        }
    }
}

fn load(path: &Path) -> Result<Config> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Config::parse(&text).with_context(|| format!("{}", path.display()))
}

fn print_records(snapshot: &Snapshot, format: RecordsFormat) -> Result<()> {
    let mut records = snapshot.records();
    match format {
        RecordsFormat::Zone => print(|out| {
            records.try_for_each(|(Key { name, rtype }, ttl, rdata)| {
                writeln!(out, "{name}\t{ttl}\tIN\t{rtype}\t{rdata}")
            })
        }),
        RecordsFormat::Tsv => {
            let line = |(Key { name, rtype }, _, rdata): (&Key, Ttl, &Rdata)| {
                format!("{name}\t{rtype}\t{rdata}\n")
            };
            let mut lines: Vec<String> = records.map(line).collect();
            lines.sort_unstable();
            print(|out| lines.iter().try_for_each(|line| out.write_all(line.as_bytes())))
        }
        RecordsFormat::Json => say(&pretty(&report::records(snapshot))?),
    }
}

/// The chosen targets, opened.
fn chosen(config: &Config, choice: &Choice) -> Result<Vec<Target>> {
    if config.targets.is_empty() {
        bail!("no [[target]] is configured");
    }
    Ok(daemon::targets(&narrowed(config, choice)?)?)
}

/// The configuration with the chosen targets only.
fn narrowed(config: &Config, choice: &Choice) -> Result<Config> {
    for name in &choice.target {
        if !config.targets.iter().any(|target| target.name == *name) {
            let known: Vec<&str> = config.targets.iter().map(|target| &*target.name).collect();
            bail!("no target is named {name:?}; there are: {}", known.join(", "));
        }
    }
    let mut config = config.clone();
    config.targets.retain(|t| choice.target.is_empty() || choice.target.contains(&t.name));
    Ok(config)
}

async fn check(path: &Path, config: &Config, choice: &Choice) -> Result<Ending> {
    let mut worst = Level::Well;
    let tell = |found: Vec<findings::Finding>| {
        worst = worst.max(findings::worst(&found));
        say(&findings::text(&found, style()))
    };
    check::check(path, &narrowed(config, choice)?, tell).await?;
    Ok(match worst {
        Level::Well => Ending::Well,
        Level::Warning => Ending::Changes,
        Level::Failure => Ending::Trouble,
    })
}

async fn diff(
    config: &Config,
    source: &Source,
    choice: &Choice,
    format: DiffFormat,
) -> Result<Ending> {
    let mut targets = chosen(config, choice)?;
    if format == DiffFormat::Nsupdate && targets.len() != 1 {
        bail!("--format nsupdate needs exactly one target: choose it with --target");
    }
    let snapshot = snapshot(config, source).await?;
    let planned = join_all(targets.iter_mut().map(|target| plan(target, &snapshot))).await;
    let (mut ending, mut reports, mut text) = (Ending::Well, Vec::new(), String::new());
    for (target, planned) in targets.iter().zip(planned) {
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                complain(&format!("{error:#}"));
                ending = Ending::Trouble;
                continue;
            }
        };
        let changes = plan.withheld.waits() || !plan.approved.changes().is_empty();
        ending = ending.max(if changes { Ending::Changes } else { Ending::Well });
        let server = target.server();
        let Some(about) = about(target, &server, &snapshot) else { continue };
        match format {
            DiffFormat::Text => text += &report::text(&about, &plan, style()),
            DiffFormat::Json => {
                reports.push(report::json(&about, plan.approved.changes(), &plan.withheld))
            }
            DiffFormat::Nsupdate => text += &script(target, &about, &plan),
        }
    }
    if format == DiffFormat::Json {
        let version = report::JSON_VERSION;
        text = pretty(&serde_json::json!({ "version": version, "targets": reports }))?;
    }
    say(&text)?;
    Ok(ending)
}

async fn plan(target: &mut Target, snapshot: &Snapshot) -> Result<Plan> {
    target.read(snapshot.zone_of(&target.config.scope.zone)).await?;
    target.check_owner()?;
    Ok(target.plan(snapshot, &[]))
}

fn about<'a>(target: &'a Target, server: &'a str, snapshot: &Snapshot) -> Option<About<'a>> {
    let view = target.view()?;
    Some(About {
        target: &target.config.name,
        server,
        zone: target.zone(),
        serial: view.serial,
        adoption: target.adoption(view),
        completeness: snapshot.completeness,
    })
}

/// The plan as commands for `nsupdate`, packed as `sync` would send it.
fn script(target: &Target, about: &About<'_>, plan: &Plan) -> String {
    let before = target.view().and_then(|view| match &view.fence {
        Found::Fence(fence) => Some(fence.rdata()),
        Found::Absent | Found::Other(_) => None,
    });
    let (name, after, replaced) = (target.fence_name().clone(), None, Vec::new());
    let step = FenceStep { name, before, after, replaced };
    let held = report::text(about, plan, Style::Plain);
    let comments = held.lines().filter(|line| !line.starts_with(['+', '-']));
    let mut text: String = comments.map(|line| format!("; {line}\n")).collect();
    let mut packer = Packer::new(plan.approved.changes().to_vec());
    while !packer.is_empty() {
        let batch = packer.take(target.limits());
        text += &update::script(&target.config.server, target.zone(), &step, &batch);
    }
    text
}

/// What `sync` is asked beside its targets.
struct Asked {
    approve: Vec<Approve>,
    take_over: Option<Owner>,
}

/// One `--approve`.
enum Approve {
    Id(PlanId),
    Plan(PathBuf, report::SavedPlan),
}

impl fmt::Display for Approve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Approve::Id(id) => id.fmt(f),
            Approve::Plan(file, _) => file.display().fmt(f),
        }
    }
}

impl Approve {
    fn read(word: &Path) -> Result<Approve> {
        let id = word.to_str().and_then(|text| text.parse().ok());
        if let Some(id) = id {
            return Ok(Approve::Id(id));
        }
        let about = || {
            let word = word.display();
            format!(
                "--approve {word}: neither a plan id nor a file that `diff --format json` wrote"
            )
        };
        let text = std::fs::read_to_string(word).with_context(about)?;
        let plan = serde_json::from_str(&text).with_context(about)?;
        Ok(Approve::Plan(word.to_owned(), plan))
    }

    fn of(&self, target: &Target) -> Result<Approval> {
        match self {
            Approve::Id(id) => Ok(Approval::Id(*id)),
            Approve::Plan(file, plan) => {
                let held = plan.held(&target.config.name, target.zone());
                Ok(Approval::Entries(
                    held.with_context(|| format!("--approve {}", file.display()))?,
                ))
            }
        }
    }
}

async fn sync(config: &Config, source: &Source, choice: &Choice, asked: &Asked) -> Result<Ending> {
    let mut targets = chosen(config, choice)?;
    for target in &mut targets {
        target.take_over.clone_from(&asked.take_over);
    }
    let stop = stop_signal()?;
    let snapshot = snapshot(config, source).await?;
    let passes = targets.iter_mut().map(|target| sync_target(target, &snapshot, asked, &stop));
    let (mut ending, mut released) = (Ending::Well, Released::Nothing);
    for passed in join_all(passes).await {
        match passed {
            Ok((ended, freed)) => (ending, released) = (ending.max(ended), released.max(freed)),
            Err(error) => {
                complain(&format!("{error:#}"));
                ending = Ending::Trouble;
            }
        }
    }
    if released == Released::Nothing && ending != Ending::Trouble {
        for approve in &asked.approve {
            warn!("{approve} releases nothing; `diff` shows what is held");
        }
    }
    Ok(ending)
}

/// Whether an approval had anything to release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Released {
    Nothing,
    Something,
}

async fn sync_target(
    target: &mut Target,
    snapshot: &Snapshot,
    asked: &Asked,
    stop: &watch::Receiver<bool>,
) -> Result<(Ending, Released)> {
    let ended = sync_pass(target, snapshot, asked, stop).await;
    // Nobody shall wait out the fence of a process that is gone.
    target.give_back().await;
    ended
}

async fn sync_pass(
    target: &mut Target,
    snapshot: &Snapshot,
    asked: &Asked,
    stop: &watch::Receiver<bool>,
) -> Result<(Ending, Released)> {
    let approvals: Vec<Approval> =
        asked.approve.iter().map(|approve| approve.of(target)).collect::<Result<_>>()?;
    let (mut text, mut ending, mut released) = (String::new(), Ending::Well, Released::Nothing);
    let mut tell = |target: &Target, plan: &Plan| {
        let server = target.server();
        let Some(about) = about(target, &server, snapshot) else { return };
        // Each round's, when a server had refused some of the one before.
        text += &report::text(&about, plan, style());
        ending = if plan.withheld.waits() { Ending::Changes } else { Ending::Well };
        if plan.released_count > 0 {
            released = Released::Something;
        }
    };
    let passed = target.pass(snapshot, &Order::sync(&approvals, stop), &mut tell).await?;
    for (name, rcode) in target.refused_names() {
        text += &(style().paint("33", &report::refusal(name, rcode)) + "\n");
        ending = Ending::Changes;
    }
    match passed {
        Passed::Stopped => {
            bail!("target {}: stopped before everything was sent", target.config.name)
        }
        Passed::Unfinished | Passed::Done => say(&once(&text))?,
    }
    if passed == Passed::Unfinished {
        let (name, server) = (&target.config.name, target.server());
        bail!("target {name}, server {server}: it refuses more names than one `sync` looks for");
    }
    Ok((ending, released))
}

/// Each line where it is first.
fn once(text: &str) -> String {
    let mut told = HashSet::new();
    text.lines().filter(|line| told.insert(*line)).map(|line| format!("{line}\n")).collect()
}

async fn approve(config: &Config, id: PlanId) -> Result<Ending> {
    let http = config.http.as_ref();
    let http = http.context("no [http] is configured, so no running process can be asked")?;
    let secret = http.token.as_ref();
    let secret =
        secret.context("no [http] token_file is configured, and nothing is approved without")?;
    let token = secret::token(secret).context("[http] token_file")?;
    let mut address = http.listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let url = format!("http://{address}/v1/plan/{id}/approve");
    let posted = http::post(&url, &token).await;
    let (status, said) =
        posted.with_context(|| format!("is `mesozone run` at work on {address}?"))?;
    match status.as_u16() {
        200 => say(&said)?,
        404 => {
            complain(said.trim_end());
            return Ok(Ending::Changes);
        }
        _ => bail!("{address} answered {status}: {}", said.trim_end()),
    }
    Ok(Ending::Well)
}

async fn run_daemon(path: &Path, config: Config) -> Result<Ending> {
    config.check_purpose()?;
    let read = || load(path).map_err(|error| format!("{error:#}"));
    let signals = Signals { stop: stop_signal()?, reload: reload_signal()?, read: &read };
    daemon::run(config, signals).await?;
    info!("stopped");
    Ok(Ending::Well)
}

/// Tells of each SIGHUP.
fn reload_signal() -> Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Where one is told already, that one reads what is there then.
            let _ = sender.try_send(());
        }
    });
    Ok(receiver)
}

/// Turns true at SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
    });
    Ok(receiver)
}
