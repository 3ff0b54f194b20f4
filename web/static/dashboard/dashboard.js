/** The dashboard: the address says what is shown, and every link within it is an address. */

import { addressOf, filteredBy, filters, viewName } from "./address.js";
import { useKey, view } from "./server.js";
import { answer } from "./view.js";

const UNAUTHENTICATED = 401;
const main = /** @type {HTMLElement} */ (document.querySelector("#view"));
const form = /** @type {HTMLFormElement} */ (document.querySelector("form.filters"));
const status = document.querySelector(".status");
/** @type {?AbortController} */
let running = null;

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
  go(link.getAttribute("href"));
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
  const stop = working();
  try {
    const found = await view(name, filters(), mine.signal);
    if (running !== mine) return;
    put("answer", answer(found, failed), `${found.title} is shown.`);
    document.title = `${found.title} · Whence`;
  } catch (problem) {
    if (problem.name === "AbortError" || running !== mine) return;
    if (problem.status === UNAUTHENTICATED) needsKey(problem);
    else failed(problem);
  } finally {
    stop();
  }
}

/** @param {string} name */
function markPlace(name) {
  for (const link of document.querySelectorAll("nav a")) {
    const its = /** @type {HTMLElement} */ (link).dataset.view;
    link.setAttribute("href", addressOf(its));
    if (its === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const here = filters();
  for (const field of form.querySelectorAll("input")) field.value = here.get(field.name) ?? "";
}

/** @returns {() => void} Ends the clock. */
function working() {
  const node = copy("working");
  const begun = performance.now();
  const clock = setInterval(() => {
    node.querySelector(".elapsed").textContent = `${Math.round((performance.now() - begun) / 1000)} s`;
  }, 1000);
  put("working", node, "Drawing the view.");
  return () => clearInterval(clock);
}

/** @param {Error & {title?: string}} problem */
function failed(problem) {
  const node = copy("error");
  node.querySelector(".title").textContent = problem.title ?? "The view could not be drawn";
  node.querySelector(".detail").textContent = problem.message;
  node.querySelector(".retry").addEventListener("click", show);
  put("error", node, "");
}

/** @param {Error} problem */
function needsKey(problem) {
  const node = /** @type {HTMLFormElement} */ (copy("needs-key"));
  node.querySelector(".detail").textContent = problem.message;
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(String(new FormData(node).get("key")));
    show();
  });
  put("needs-key", node, "");
}

/** @param {string} name @returns {HTMLElement} */
function copy(name) {
  const template = /** @type {HTMLTemplateElement} */ (document.querySelector(`#${name}`));
  return /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
}

/** @param {string} state @param {HTMLElement} node @param {string} says */
function put(state, node, says) {
  main.dataset.state = state;
  main.replaceChildren(node);
  status.textContent = says;
}
