//! The page for people, in a real browser, over a real `run` and a real name server.

mod browser;

use std::io::{Read, Write};
use std::net::TcpStream;

use browser::Browser;
use serde_json::json;

use crate::peer::{Peer, Setup};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::Site;

const TOKEN: &str = "a token with = & and %41";
/// A task with a name as long as a name may be.
const LONG: &str = "a-rather-long-name-for-a-task-that-does-just-what-its-name-says";

/// A cluster, a name server, a `run` between them, and the address of its page.
struct Stage {
    master: Simulated,
    site: Site,
    /// The zone before anything was published.
    empty: Vec<String>,
    daemon: Daemon,
    url: String,
}

impl Stage {
    /// One where everything is published that runs: some tasks, and 40 called `app`.
    fn start() -> Stage {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = Site::start(Peer::Bind, &Setup::default());
        let (server, token) = (site.peer.addr().to_string(), site.path("token"));
        std::fs::write(&token, TOKEN).unwrap();
        let http = format!("[http]\nlisten = \"127.0.0.1:0\"\ntoken_file = {token:?}\n");
        site.configure(&server, site.peer.key_file(), "max_shrink = \"20%\"", &http);
        site.follow(&[format!("http://{}", master.address)], "");
        let start = |name, count| {
            master
                .control(json!({"start": {"framework": "marathon", "name": name, "count": count}}))
        };
        start("app", 40);
        start(LONG, 1);
        let (empty, mut daemon) = (site.peer.axfr(), Daemon::start(&site));
        let mut url = None;
        until("it says where it listens", || {
            let said = daemon.log().iter().find_map(|line| line.split_once("HTTP on "));
            url = said.map(|(_, rest)| rest.trim().to_owned());
            url.is_some()
        });
        let stage = Stage { master, site, empty, daemon, url: url.unwrap() };
        until("all are there", || stage.is_level());
        stage
    }

    /// The same after the cluster lost all that is called `app`: the removals are held.
    fn held() -> Stage {
        let stage = Stage::start();
        stage.master.control(json!({"kill": {"name": "app", "count": 40}}));
        until("the removals are held", || stage.html().contains("wait for an approval"));
        stage
    }

    /// Whether the zone is what the cluster wants.
    fn is_level(&self) -> bool {
        self.published() == desired(&self.site)
    }

    fn published(&self) -> String {
        self.site.published(&self.empty)
    }

    /// The page as it is sent.
    fn html(&self) -> String {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A browser that shows the page.
    fn browser(&self) -> Browser {
        let mut browser = Browser::start();
        browser.open(&self.url);
        browser
    }
}

/// Where the token goes.
const FIELD: &str = "#held form input[name=token]";
const BUTTON: &str = "#held form button";

#[test]
fn what_is_held_goes_when_the_token_is_typed_and_the_button_pressed() {
    let stage = Stage::held();
    let (full, mut browser) = (stage.published(), stage.browser());
    browser.shows("1 thing waits.");
    browser.shows("wait for an approval: the desired records fell from");
    assert_eq!(browser.value("document.title"), "mesozone: 1 thing waits");
    assert_eq!(browser.value("document.querySelectorAll('#held form').length"), 1);
    browser.click("#held summary");
    browser.shows("- app.marathon.mesos. A 10.");

    // A later page takes nothing from whoever reads this one.
    browser.click(FIELD);
    browser.types("not the to");
    browser.value("window.same = document.querySelector('#held form input'), 0");
    let time = browser.value("document.querySelector('time').innerText");
    let place = browser.value("[scrollY, document.querySelector('#held .lines').scrollTop = 40]");
    browser.waits_for(&format!("document.querySelector('time').innerText !== {time}"));
    browser.waits_for(
        "document.activeElement === window.same && window.same.value === 'not the to' && \
         document.querySelector('#held details').open",
    );
    let still = browser.value("[scrollY, document.querySelector('#held .lines').scrollTop]");
    assert_eq!(still, place);

    // Nobody looks: nothing is asked, until somebody does.
    let looks = |browser: &mut Browser, hidden: bool| {
        browser.value(&format!(
            "Object.defineProperty(document, 'hidden', {{get: () => {hidden}, configurable: true}}), \
             document.dispatchEvent(new Event('visibilitychange'))"
        ));
    };
    looks(&mut browser, true);
    let asked = "performance.getEntriesByType('resource').length";
    let (before, now) = (browser.value(asked), browser.value("performance.now()"));
    browser.waits_for(&format!("performance.now() > {now} + 6000"));
    assert_eq!(browser.value(asked), before);
    looks(&mut browser, false);
    browser.waits_for(&format!("{asked} > {before}"));

    browser.types("ken");
    browser.click(BUTTON);
    browser.shows("Nothing was approved: wrong token");
    // So that a reload approves nothing.
    browser.waits_for("location.pathname === '/'");
    assert_eq!(stage.published(), full);

    browser.open(&stage.url);
    browser.tabs_to(FIELD);
    browser.types(TOKEN);
    browser.tabs_to(BUTTON);
    let label = browser.value("document.activeElement.innerText");
    assert!(label.as_str().unwrap().starts_with("Remove these "), "{label}");
    browser.press("Enter");
    browser.shows("Approved: ");
    until("the records are gone", || stage.is_level());
    browser.shows("All well.");
    assert_eq!(browser.complaints(), [""; 0]);
    // And had there been any, they would have been seen.
    browser.value("document.body.setAttribute('style', 'color: red'), 0");
    assert_eq!(browser.complaints().len(), 1);
    assert_eq!(stage.daemon.stop().0, 0);
}

#[test]
fn the_page_follows_a_server_that_goes_down_and_comes_back_without_a_reload() {
    let mut stage = Stage::start();
    let mut browser = stage.browser();
    browser.shows("All well.");
    browser.shows("✓ well");
    browser.value("window.same = true");
    stage.site.peer.kill();
    browser.shows("1 problem.");
    browser.shows("✕ failing for");
    assert_eq!(browser.value("document.title"), "mesozone: 1 problem");
    stage.site.peer.start();
    browser.shows("All well.");
    browser.shows("Over now: error, ");
    assert_eq!(browser.value("document.title"), "mesozone: all well");

    let online = json!({"offline": false, "latency": 0, "downloadThroughput": -1,
        "uploadThroughput": -1});
    let mut offline = online.clone();
    offline["offline"] = json!(true);
    browser.call("Network.emulateNetworkConditions", offline);
    browser.shows("s old: mesozone does not answer.");
    assert_eq!(browser.value("document.title"), "mesozone: no answer");
    browser.call("Network.emulateNetworkConditions", online);
    browser.waits_for("document.querySelector('#stale').hidden");
    assert_eq!(browser.value("document.title"), "mesozone: all well");
    assert_eq!(stage.daemon.stop().0, 0);
    browser.shows("s old: mesozone does not answer.");
    assert_eq!(browser.value("window.same"), true, "it was never loaded again");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn without_javascript_and_on_a_phone_all_but_the_refresh_works() {
    let stage = Stage::held();
    let mut browser = Browser::start();
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.call("Emulation.setDeviceMetricsOverride", phone);
    browser.open(&stage.url);
    browser.click("#name");
    browser.types("app.marathon");
    browser.press("Enter");
    browser.shows("Looked up: app.marathon.mesos.");
    browser.shows(" extra there");
    browser.shows("held back: waits for an approval of");
    browser.click("#held summary");
    browser.shows("- app.marathon.mesos. A 10.");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 360);
    browser.click("#name");
    browser.value("document.querySelector('#name').value = ''");
    browser.types(LONG);
    browser.types(".marathon");
    browser.press("Enter");
    browser.shows(&format!("Looked up: {LONG}.marathon.mesos."));
    browser.shows("= equal");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 360);

    browser.click(FIELD);
    browser.types(TOKEN);
    browser.click(BUTTON);
    browser.shows("Approved: ");
    until("the records are gone", || stage.is_level());
    until("all is well again", || stage.html().contains("All well."));
    browser.open(&stage.url);
    browser.shows("All well.");
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(stage.daemon.stop().0, 0);
}
