// Keeps the page fresh. A later page is fetched, and what it says replaces what this one says,
// element by element, so that what is open, focused, typed or selected stays as it is.
"use strict";

const EVERY = 5000; // Milliseconds, as all spans here.
const PATIENCE = 10000;
const stale = document.getElementById("stale");
let fresh = performance.now();
let before = "";
let timer;
let asking = false;

// A reload after an approval asks for the page, not for the approval again.
if (location.pathname !== "/") {
  history.replaceState(null, "", "/");
}

/** Whether an element may become the other one. */
function fits(here, want) {
  return here.nodeType === want.nodeType && here.nodeName === want.nodeName && here.id === want.id;
}

/** Gives an element the attributes of another, but for what whoever reads has opened. */
function dress(here, want) {
  for (const { name, value } of want.attributes) {
    if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  }
  for (const { name } of [...here.attributes]) {
    const kept = name === "open" && here.nodeName === "DETAILS";
    if (!kept && !want.hasAttribute(name)) here.removeAttribute(name);
  }
}

/** Makes what is within an element equal to what is within another; nothing is moved, since an
 * element that moves loses the focus. */
function become(here, want) {
  const wanted = new Set([...want.children].map((child) => child.id).filter(Boolean));
  for (const child of [...here.children]) {
    if (child.id && !wanted.has(child.id)) child.remove();
  }
  let at = here.firstChild;
  for (const next of [...want.childNodes]) {
    if (!at || !fits(at, next)) {
      // One that is further down takes the place of what lies between, unless that is wanted too.
      let later = next.id ? at : null;
      while (later && !fits(later, next) && !(later.id && wanted.has(later.id))) {
        later = later.nextSibling;
      }
      if (!later || !fits(later, next)) {
        here.insertBefore(document.importNode(next, true), at);
        continue;
      }
      while (at !== later) {
        const gone = at;
        at = at.nextSibling;
        gone.remove();
      }
    }
    if (at.nodeType === Node.ELEMENT_NODE) {
      dress(at, next);
      become(at, next);
    } else if (at.data !== next.data) {
      at.data = next.data;
    }
    at = at.nextSibling;
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function show(text) {
  if (text === before) return;
  const page = new DOMParser().parseFromString(text, "text/html");
  const parts = [...document.querySelectorAll("[data-live]")].map((here) => [
    here,
    page.getElementById(here.id),
  ]);
  // Something else than mesozone may answer at its address.
  if (!parts.every(([, want]) => want)) throw new Error("it is another page");
  parts.forEach(([here, want]) => become(here, want));
  if (document.title !== page.title) document.title = page.title;
  before = text;
}

function tellAge(why) {
  const age = Math.round((performance.now() - fresh) / 1000);
  const [old, alert] = stale.children;
  old.textContent = `This page is ${age} s old:`;
  // It is read out where it is new, and not every few seconds.
  if (alert.textContent !== why) alert.textContent = why;
  stale.hidden = false;
  document.title = "mesozone: no answer";
  before = "";
  document.body.classList.add("old");
}

async function refresh() {
  if (asking || document.hidden) return;
  asking = true;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch("/", { cache: "no-store", signal });
    if (answer.ok) {
      show(await answer.text());
      fresh = performance.now();
      stale.hidden = true;
      document.body.classList.remove("old");
    } else {
      tellAge(`mesozone answers ${answer.status}.`);
    }
  } catch {
    tellAge("mesozone does not answer.");
  }
  asking = false;
  wait();
}

function wait() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, EVERY);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  refresh();
});
wait();
