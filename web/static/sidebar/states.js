/** What the sidebar shows: empty, working, error - and the answer, which `result.js` draws. */

import { copy, one } from "../common/dom.js";
import { seconds } from "../common/words.js";
import { templates } from "./assets.js";

/** @typedef {import("../common/server.js").Problem} Problem */

const ALMOST = 0.95; // an estimate that is passed does not look like an answer that is there

/** The panel in its states; one replaces the other. */
export class States {
  #panel;
  #clock = 0;

  /** @param {HTMLElement} panel Holds a `.status` (aria-live) and a `.view`. */
  constructor(panel) {
    this.#panel = panel;
    this.empty();
  }

  /** Nothing has been asked yet. */
  empty() {
    this.#show("empty", copy(templates, "empty"));
  }

  /**
   * Somebody is at work.
   * @param {string} what
   * @param {?number} expectedMs What the server took of late; null: not known.
   * @param {?(() => void)} cancel
   */
  working(what, expectedMs, cancel) {
    const view = copy(templates, "working");
    one(view, ".lead").textContent = what;
    const elapsed = one(view, ".elapsed");
    const bar = one(view, ".progress");
    const start = performance.now();
    const tick = () => {
      const passed = performance.now() - start;
      elapsed.textContent = `${(passed / 1000).toFixed(1)} s.`;
      if (expectedMs) bar.style.setProperty("--done", String(Math.min(ALMOST, passed / expectedMs)));
    };
    tick();
    bar.classList.toggle("known", Boolean(expectedMs));
    const estimate = expectedMs ? `Recent answers took about ${seconds(expectedMs)}.` : "";
    one(view, ".estimate").textContent = estimate;
    const button = one(view, ".cancel");
    button.hidden = cancel === null;
    if (cancel) button.addEventListener("click", cancel);
    this.#show("working", view, `Working: ${what}. ${estimate}`);
    this.#clock = window.setInterval(tick, 100);
  }

  /**
   * The server's sentence and a way to try again.
   * @param {Problem} problem
   * @param {() => void} retry
   */
  error(problem, retry) {
    const view = copy(templates, "error");
    one(view, ".title").textContent = problem.title;
    one(view, ".detail").textContent = problem.message;
    const reference = [
      problem.status && `Status ${problem.status}`,
      problem.requestId && `request ${problem.requestId}`,
    ];
    one(view, ".reference").textContent = reference.filter(Boolean).join(", ");
    one(view, ".retry").addEventListener("click", retry);
    this.#show("error", view);
  }

  /**
   * What the server found.
   * @param {HTMLElement} view
   * @param {string} spoken What a screen reader is told of it.
   */
  answer(view, spoken) {
    this.#show("answer", view, spoken);
  }

  /**
   * @param {string} state
   * @param {HTMLElement} view
   * @param {string} [spoken]
   */
  #show(state, view, spoken = "") {
    clearInterval(this.#clock);
    this.#panel.dataset.state = state;
    this.#panel.setAttribute("aria-busy", String(state === "working"));
    one(this.#panel, ".status").textContent = spoken;
    one(this.#panel, ".view").replaceChildren(view);
  }
}
