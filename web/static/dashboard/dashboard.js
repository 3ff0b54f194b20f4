/** The dashboard: the address says what is shown, and every link within it is an address. */

import { copy, one } from "../common/dom.js";
import { UNAUTHENTICATED, useKey } from "../common/key.js";
import { seconds } from "../common/words.js";
import { addressOf, filteredBy, filters, viewName } from "./address.js";
import { answer } from "./view.js";
import { view } from "./views.js";

/** @typedef {import("../common/server.js").Problem} Problem */

const main = one(document, "#view");
/** @type {HTMLFormElement} */
const form = one(document, "form.filters");
const status = one(document, ".status");
/** @type {?AbortController} */
let running = null;
/** What each view took when it was drawn last, milliseconds. @type {Map<string, number>} */
const took = new Map();

form.addEventListener("submit", (event) => {
  event.preventDefault();
  go(filteredBy(new FormData(form)));
});
form.addEventListener("reset", (event) => {
  event.preventDefault();
  go(filteredBy(new FormData()));
});
document.addEventListener("click", (event) => {
  const link = /** @type {Element} */ (event.target).closest?.("a[href^='?']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.getAttribute("href") ?? "");
  main.focus({ preventScroll: true });
});
addEventListener("popstate", show);
show();

/** @param {string} address */
function go(address) {
  history.pushState(null, "", address);
  show();
}

/** Only the newest view counts: an older one is given up. */
async function show() {
  running?.abort();
  const mine = (running = new AbortController());
  const name = viewName();
  markPlace(name);
  const begun = performance.now();
  const stop = working(begun, took.get(name));
  try {
    const found = await view(name, filters(), mine.signal);
    if (running !== mine) return;
    took.set(name, performance.now() - begun);
    put("answer", answer(found, failed), `${found.title} is shown.`);
    document.title = `${found.title} · Whence`;
  } catch (problem) {
    if (running === mine) failed(/** @type {Problem} */ (problem));
  } finally {
    stop();
  }
}

/** @param {string} name */
function markPlace(name) {
  for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll("nav a"))) {
    const its = link.dataset.view ?? "";
    link.setAttribute("href", addressOf(its));
    if (its === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const here = filters();
  for (const field of form.querySelectorAll("input")) field.value = here.get(field.name) ?? "";
}

/** @param {number} begun @param {number} [lastMs] @returns {() => void} Ends the clock. */
function working(begun, lastMs) {
  const node = copy(document, "working");
  const clock = setInterval(() => {
    one(node, ".elapsed").textContent = `${Math.round((performance.now() - begun) / 1000)} s.`;
  }, 1000);
  const estimate = lastMs ? `It took about ${seconds(lastMs)} last time.` : "";
  one(node, ".estimate").textContent = estimate;
  put("working", node, `Drawing the view. ${estimate}`);
  return () => clearInterval(clock);
}

/** @param {Partial<Problem> & Error} problem */
function failed(problem) {
  if (problem.status === UNAUTHENTICATED) return needsKey(problem);
  const node = copy(document, "error");
  one(node, ".title").textContent = problem.title ?? "The view could not be drawn";
  one(node, ".detail").textContent = problem.message;
  one(node, ".retry").addEventListener("click", show);
  put("error", node, "");
}

/** @param {Error} problem */
function needsKey(problem) {
  /** @type {HTMLFormElement} */
  const node = copy(document, "needs-key");
  one(node, ".detail").textContent = problem.message;
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(String(new FormData(node).get("key")));
    show();
  });
  put("needs-key", node, "");
  one(node, "input").focus();
}

/** @param {string} state @param {HTMLElement} node @param {string} says */
function put(state, node, says) {
  main.dataset.state = state;
  main.replaceChildren(node);
  status.textContent = says;
}
