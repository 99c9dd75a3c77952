//! A Chromium without a window, driven over the DevTools protocol through two pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::until;

const PATIENCE: Duration = Duration::from_secs(60);

/// Commands come in on its descriptor 3 and answers go out on 4, each ended by a zero octet.
const START: &str = "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null";

/// A browser with one page; it ends with the value.
pub(crate) struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last_id: u64,
    session: Option<String>,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    #[track_caller]
    pub(crate) fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", START, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"])
            .args(["--disable-background-networking", "--disable-extensions", "--no-proxy-server"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let messages = answers.split(0).map_while(Result::ok);
            let mut read = messages.filter_map(|text| serde_json::from_slice(&text).ok());
            read.try_for_each(|message| sender.send(message))
        });
        let mut browser = Browser {
            process,
            commands,
            messages,
            last_id: 0,
            session: None,
            complaints: Vec::new(),
            _profile: profile,
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let id = &target["targetId"];
        let attached = self.call("Target.attachToTarget", json!({"targetId": id, "flatten": true}));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true}));
        // What glides is not where it was measured.
        let still = json!([{"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": still}));
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        write!(self.commands, "{command}\0").unwrap();
        self.commands.flush().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// Keeps what the page complains of. That a server is away is no complaint: the browser says
    /// so of every request.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(&params["exceptionDetails"]),
            Some("Runtime.consoleAPICalled") => Some(params),
            Some("Log.entryAdded") => Some(&params["entry"])
                .filter(|entry| entry["level"] != "verbose" && entry["source"] != "network"),
            _ => None,
        };
        self.complaints.extend(complaint.map(Value::to_string));
    }

    /// Errors, exceptions and violations of the policy since the last look.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // What happened before this answer was told before it.
        self.value("0");
        std::mem::take(&mut self.complaints)
    }

    /// The value of an expression.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{opened}");
        self.waits_for("document.readyState === 'complete'");
    }

    /// Waits until an expression holds; while one page becomes another there is none to ask.
    #[track_caller]
    pub(crate) fn waits_for(&mut self, expression: &str) {
        let guarded = format!("!!document.body && !!({expression})");
        until(expression, || self.value(&guarded) == true);
    }

    /// Waits until the page has this text.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) {
        self.waits_for(&format!("document.body.innerText.includes({})", json!(text)));
    }

    /// Clicks on the middle of an element, as a mouse does.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        let middle = self.value(&format!(
            "(() => {{ const it = document.querySelector({selector}); \
             it.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const box = it.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left",
                "clickCount": 1});
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Types a text where the focus is.
    pub(crate) fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key: Tab, Enter or the space bar.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => (32, other),
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for kind in [down, "keyUp"] {
            let mut params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" {
                params["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Goes on with the Tab key until the focus is on what a selector names, and sees to it that
    /// the focus can be seen all the way.
    #[track_caller]
    pub(crate) fn tabs_to(&mut self, selector: &str) {
        let selector = json!(selector);
        for _ in 0..60 {
            self.press("Tab");
            let outline = self.value("getComputedStyle(document.activeElement).outlineStyle");
            assert_eq!(outline, "solid", "{}", self.value("document.activeElement.outerHTML"));
            if self.value(&format!("document.activeElement.matches({selector})")) == true {
                return;
            }
        }
        panic!("no Tab leads to {selector}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:#?}", self.complaints);
        }
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
