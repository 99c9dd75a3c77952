//! What a package of mesozone is made of: man page, completions, unit, app definition, images.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use clap_mangen::Man;
use mesozone::cli::Cli;
use mesozone::config::Config;
use serde_json::Value;

use crate::documents::golden;
use crate::peer::example;
use crate::site::Ran;

const UNIT: &str = "systemd/mesozone.service";
const APP: &str = "marathon/mesozone.json";
const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// What the command line itself does not tell.
const MORE_OF_THE_MAN_PAGE: &str = r#".SH FILES
.TP
.I mesozone.toml
The configuration, where it is in the working directory.
.TP
.I /etc/mesozone/mesozone.toml
The configuration otherwise. It names the files that hold secrets.
.SH SIGNALS
.B mesozone run
reads its configuration again at SIGHUP, and goes on with the old one where the new one is wrong. At SIGTERM and
SIGINT it finishes the message in flight, lets go of its fences and exits with 0.
.SH SEE ALSO
.BR dig (1),
.BR nsupdate (1),
.BR tsig\-keygen (8),
.BR systemd.service (5)
"#;

fn mesozone(args: &[&str]) -> Ran {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesozone"));
    Ran::of(command.args(args).current_dir(empty.path()).output().unwrap())
}

fn commands() -> Vec<clap::Command> {
    Cli::command().get_subcommands().cloned().collect()
}

/// What `roff` has before all that it writes: how an apostrophe is written.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

fn sections(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    write(&mut text).unwrap();
    String::from_utf8(text).unwrap().replace(PREAMBLE, "")
}

/// One page for all commands: what `clap_mangen` says of each, below one heading.
fn man_page() -> String {
    let whole = Man::new(Cli::command());
    let mut page = sections(|out| {
        whole.render_title(out)?;
        whole.render_name_section(out)?;
        whole.render_synopsis_section(out)?;
        whole.render_options_section(out)
    });
    page.insert_str(0, PREAMBLE);
    page += ".SH COMMANDS\n";
    for command in commands() {
        page += &format!(".SS {}\n", command.get_name());
        let one = Man::new(command.disable_help_flag(true));
        let text = sections(|out| {
            one.render_description_section(out)?;
            one.render_options_section(out)
        });
        let inner = text.lines().filter(|line| !line.starts_with(".SH "));
        page.extend(inner.map(|line| format!("{line}\n")));
    }
    page + MORE_OF_THE_MAN_PAGE
}

#[test]
fn the_man_page_says_what_the_command_line_says() {
    golden("examples/man/mesozone.1", &man_page());
}

#[test]
fn every_shell_has_completions_of_every_command() {
    for shell in SHELLS {
        let script = mesozone(&["completions", shell]).exits(0).stdout;
        for command in commands() {
            assert!(script.contains(command.get_name()), "{shell} lacks {}", command.get_name());
        }
    }
    assert!(mesozone(&["completions", "csh"]).exits(2).stderr.contains(&SHELLS.join(", ")));
}

#[test]
fn bash_completes_commands_options_and_formats() {
    let script = mesozone(&["completions", "bash"]).exits(0).stdout;
    let complete = |words: &[&str]| {
        let (last, before) = (words.last().unwrap(), words[words.len() - 2]);
        let words = words.join(" ");
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _mesozone mesozone '{last}' '{before}'; echo \"${{COMPREPLY[*]}}\""
        );
        Ran::of(Command::new("bash").args(["-c", &ask]).output().unwrap()).exits(0).stdout
    };
    assert_eq!(complete(&["mesozone", "di"]), "diff\n");
    assert_eq!(complete(&["mesozone", "sync", "--app"]), "--approve\n");
    assert_eq!(complete(&["mesozone", "diff", "--format", "ns"]), "nsupdate\n");
}

/// The lines of a unit, without comments.
fn directives(unit: &str) -> Vec<(&str, &str)> {
    let lines = unit.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    lines.map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The program takes these words, up to the last.
#[track_caller]
fn check_command_line(words: &[&str]) {
    let said = mesozone(&[words, &["--help"]].concat()).exits(0);
    assert!(said.stdout.contains("Usage: mesozone run"), "{words:?}: {said:#?}");
}

#[test]
fn the_unit_starts_a_command_that_there_is_and_tells_it_to_reload() {
    let unit = example(UNIT);
    let of = |name: &str| {
        let mut values = directives(&unit).into_iter().filter(|(key, _)| *key == name);
        values.next().unwrap_or_else(|| panic!("no {name}")).1.to_owned()
    };
    let start = of("ExecStart");
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/mesozone");
    check_command_line(&words[1..]);
    assert_eq!(of("ExecReload"), "/bin/kill -HUP $MAINPID");
    // With `notify-reload`, which systemd knows from 253 on, older ones refuse the unit.
    assert_eq!(of("Type"), "notify");
}

/// The exposure that a comment of the unit names, in tenths, and with which systemd.
fn noted_exposure(unit: &str) -> u32 {
    let noted = unit.lines().find_map(|line| line.strip_prefix("# systemd-analyze security: "));
    let noted = noted.expect("the score is noted").split(' ').next().unwrap();
    noted.replace('.', "").parse().unwrap()
}

#[test]
fn systemd_understands_the_unit_and_finds_it_no_more_exposed_than_noted() {
    let (unit, dir) = (example(UNIT), tempfile::tempdir().unwrap());
    let exposure = noted_exposure(&unit);
    assert!(exposure < 20, "{exposure}");
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("there is no systemd-analyze here: the unit is not verified");
        return;
    }
    let file = dir.path().join("mesozone.service");
    let here = unit.replace("/usr/bin/mesozone", env!("CARGO_BIN_EXE_mesozone"));
    std::fs::write(&file, here).unwrap();
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        Ran::of(command.args(args).arg(&file).env("SYSTEMD_PAGER", "").output().unwrap())
    };
    let said = analyze(&["verify", "--man=no"]).exits(0);
    // What it says of units of the machine is not ours.
    assert!(!said.stderr.contains("mesozone.service"), "{said:#?}");
    // A later systemd looks at more.
    let threshold = format!("--threshold={}", exposure + 5);
    analyze(&["security", "--offline=yes", "--no-pager", &threshold]).exits(0);
}

#[test]
fn what_the_unit_says_of_the_configuration_is_one() {
    let unit = example(UNIT);
    let lines = unit.lines().filter_map(|line| line.strip_prefix("#   "));
    let lines: Vec<&str> = lines.collect();
    let credential = directives(&unit).into_iter().find(|(key, _)| *key == "LoadCredential");
    let (name, _) = credential.expect("a key").1.split_once(':').unwrap();
    let path = format!("/run/credentials/mesozone.service/{name}");
    assert_eq!(lines, [format!("tsig_key_file = {path:?}")]);
    let target = lines.concat() + "\nname = \"bind\"\nserver = \"10.0.0.53\"\n";
    let mesos = "[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n";
    Config::parse(&format!("{mesos}[[target]]\n{target}")).unwrap();
}

#[test]
fn the_app_starts_a_command_that_there_is_and_is_asked_what_there_is_to_ask() {
    let app: Value = serde_json::from_str(&example(APP)).unwrap();
    let args = app["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    check_command_line(&args.collect::<Vec<_>>());
    let paths = app["healthChecks"].as_array().unwrap().iter().map(|check| &check["path"]);
    assert!(paths.clone().eq(["/healthz"]), "{:?}", paths.collect::<Vec<_>>());
    // One more than there are may not start, and one that is not there may be missed.
    let upgrade = &app["upgradeStrategy"];
    assert_eq!(upgrade["minimumHealthCapacity"], 0.5);
    assert_eq!(upgrade["maximumOverCapacity"], 0.0);
    assert_eq!(app["instances"], 2);
}

#[test]
fn every_file_that_the_compose_file_mounts_or_builds_from_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compose = std::fs::read_to_string(root.join("docker-compose.yml")).unwrap();
    let words = compose.split([' ', '\n', ':', ',', '"', '}']);
    let files: Vec<PathBuf> =
        words.filter_map(|word| word.strip_prefix("./")).map(|word| root.join(word)).collect();
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        assert!(file.is_file(), "{}", file.display());
    }
}

#[test]
fn the_images_are_made_of_what_is_there_and_run_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["docker/Dockerfile", "docker/Dockerfile.servers"] {
        for line in example(file).lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match &*words {
                ["COPY", from @ .., _] if !from[0].starts_with("--from") => {
                    // A pattern may match nothing.
                    for path in
                        from.iter().filter(|path| !path.starts_with("--") && !path.contains('['))
                    {
                        assert!(root.join(path).exists(), "{file}: {line}");
                    }
                }
                ["CMD", ..] if file == "docker/Dockerfile" => assert_eq!(line, r#"CMD ["run"]"#),
                _ => {}
            }
        }
    }
    check_command_line(&["run"]);
}

#[test]
fn bind_takes_the_options_that_it_has_in_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let options = dir.path().join("named.conf");
    let directory = format!("directory {:?};", dir.path().display().to_string());
    let text = example("docker/named.conf.options");
    std::fs::write(&options, text.replace("directory \"/var/cache/bind\";", &directory)).unwrap();
    Ran::of(Command::new("named-checkconf").arg(&options).output().unwrap()).exits(0);
}
