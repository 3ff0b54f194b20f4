/** "Most valuable data": one panel, five states - empty, working, answer, error, needs a key. */

import { bar, card, offerToUnfold } from "./card.js";
import { STANDS_OUT, count, duration, nats, percent } from "./words.js";

/** @typedef {import("./api.js").Attribution} Attribution */

const OWNERS_SHOWN = 4;

export class Panel {
  #element;
  #clock;

  /** @param {HTMLElement} element Holds a `.status` (aria-live) and a `.view`. */
  constructor(element) {
    this.#element = element;
    this.empty();
  }

  /** Nothing has been asked yet. */
  empty() {
    this.#show("empty", copy("empty"));
  }

  /** The server is at work. @param {() => void} cancel */
  working(cancel) {
    const view = copy("working");
    const elapsed = view.querySelector(".elapsed");
    const start = performance.now();
    const tick = () => (elapsed.textContent = `${((performance.now() - start) / 1000).toFixed(1)} s.`);
    tick();
    view.querySelector(".cancel").addEventListener("click", cancel);
    this.#show("working", view, "Working: tracing the answer back through the index.");
    this.#clock = setInterval(tick, 100);
  }

  /** The server's sentence and a way to try again. @param {() => void} retry */
  error(problem, retry) {
    const view = copy("error");
    view.querySelector(".title").textContent = problem.title;
    view.querySelector(".detail").textContent = problem.message;
    const reference = [
      problem.status && `Status ${problem.status}`,
      problem.requestId && `request ${problem.requestId}`,
    ];
    view.querySelector(".reference").textContent = reference.filter(Boolean).join(", ");
    view.querySelector(".retry").addEventListener("click", retry);
    this.#show("error", view);
  }

  /** The server wants an API key. @param {(key: string) => void} use */
  needsKey(problem, use) {
    const view = copy("needs-key");
    view.querySelector(".detail").textContent = problem.message;
    view.addEventListener("submit", (event) => {
      event.preventDefault();
      use(new FormData(view).get("key"));
    });
    this.#show("needs-key", view, "The server wants an API key.");
    view.elements.key.focus();
  }

  /** What the server found. @param {Attribution} found */
  answer(found) {
    const view = copy("result");
    const { query, proponents, opponents, owners } = found;
    const spoken = query.message || verdict(proponents);
    view.querySelector(".message").textContent = spoken;
    view.querySelector(".measured").textContent = measured(found);
    view.classList.toggle("nothing", !query.stands_out);

    const hits = [...proponents, ...opponents];
    const largest = Math.max(0, ...hits.map((hit) => Math.abs(hit.relative_influence)));
    fill(view.querySelector(".proponents"), proponents, largest, query.stands_out);
    fill(view.querySelector(".opponents"), opponents, largest, query.stands_out);
    list(view.querySelector(".owners"), owners);

    if (!query.stands_out) {
      // Ten documents are always nearest to anything: shown unasked they would pass for a finding.
      const weak = view.querySelector(".weak");
      weak.hidden = false;
      weak.append(...[".key", ".hits", ".owners"].map((part) => view.querySelector(part)));
    }
    for (const folded of view.querySelectorAll("details")) {
      folded.addEventListener("toggle", () => unfold(view));
    }
    this.#show("answer", view, spoken);
    unfold(view);
  }

  #show(state, view, spoken = "") {
    clearInterval(this.#clock);
    this.#element.dataset.state = state;
    this.#element.setAttribute("aria-busy", String(state === "working"));
    this.#element.querySelector(".status").textContent = spoken;
    this.#element.querySelector(".view").replaceChildren(view);
  }
}

function copy(id) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  return /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
}

function unfold(view) {
  for (const node of view.querySelectorAll(".hits li")) offerToUnfold(node);
}

/** What stands out is listed; the rest of a side is folded, unless nothing stands out at all. */
function fill(section, hits, largest, standsOut) {
  const strong = hits.filter((hit) => !standsOut || hit.confidence >= STANDS_OUT);
  const weak = hits.filter((hit) => !strong.includes(hit));
  const place = (list, some) => list.append(...some.map((hit) => card(hit, largest)));
  place(section.querySelector("ol.strong"), strong);
  place(section.querySelector("ol.faint"), weak);
  section.querySelector(".none").hidden = strong.length > 0;
  section.querySelector("details").hidden = weak.length === 0;
  const more = strong.length > 0 ? " more" : "";
  const verb = weak.length === 1 ? "does" : "do";
  section.querySelector("summary").textContent = `Show ${weak.length}${more} that ${verb} not stand out`;
}

function verdict(proponents) {
  const strong = proponents.filter((hit) => hit.confidence >= STANDS_OUT);
  if (strong.length === 0) return "No passage stands out as a proponent.";
  const [{ title, document_id }] = strong;
  const first = title || document_id;
  return strong.length === 1
    ? `One passage stands out: “${first}”`
    : `${strong.length} passages stand out, first of all “${first}”`;
}

function measured({ query, index, timings_ms, cached }) {
  const total = Object.values(timings_ms).reduce((sum, part) => sum + part, 0);
  return [
    `${count(query.tokens, "token")} of response, ${query.loss_nats.toFixed(1)} nats`,
    index.exact ? "exact search" : "approximate search",
    cached ? "from the cache" : duration(total),
  ].join(" · ");
}

/** Owners with their exact totals, for and against; the largest few, the rest on request. */
function list(section, owners) {
  section.hidden = owners.length === 0;
  const largest = Math.max(0, ...owners.map(({ influence }) => Math.abs(influence)));
  const ordered = owners.toSorted((a, b) => Math.abs(b.influence) - Math.abs(a.influence));
  const rows = ordered.map(({ owner, influence, share }, position) => {
    const row = copy("owner");
    row.querySelector(".name").textContent = owner ?? "No owner named";
    const amount = [nats(influence), share > 0 && percent(share)];
    row.querySelector(".amount").textContent = amount.filter(Boolean).join(" · ");
    bar(row.querySelector(".bar"), influence, largest);
    row.hidden = position >= OWNERS_SHOWN;
    return row;
  });
  section.querySelector("ol").append(...rows);

  const more = section.querySelector(".more-owners");
  const rest = rows.slice(OWNERS_SHOWN);
  more.hidden = rest.length === 0;
  more.textContent = `Show all ${rows.length} owners`;
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "Show fewer" : `Show all ${rows.length} owners`;
    for (const row of rest) row.hidden = !open;
  });
}
