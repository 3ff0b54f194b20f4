/** The turns of the conversation: new ones, their answers, and the one that the sidebar is about. */

import { one } from "../common/dom.js";
import { UNAUTHENTICATED } from "../common/key.js";
import { streamChat } from "./chat.js";
import { compareForm, editForm } from "./forms.js";
import { Turn } from "./turn.js";

/**
 * @typedef {import("../most-valuable-data.js").MostValuableData} Sidebar
 * @typedef {import("../common/server.js").Problem} Problem
 * @typedef {import("../common/server.js").Server} Server
 * @typedef {import("./chat.js").Message} Message
 * @typedef {import("./turn.js").Actions} Actions
 */

/** A conversation beside a sidebar. */
export class Conversation {
  /** @type {Turn[]} */
  #turns = [];
  /** @type {?Turn} */
  #selected = null;
  #writing = new AbortController();
  /** @type {?string} */
  #model = null;
  #place;
  #heard;
  #sidebar;
  #server;
  #wantsKey;

  /**
   * @param {HTMLElement} section Holds `.turns` and `.heard` (aria-live).
   * @param {Sidebar} sidebar
   * @param {() => Server} server
   * @param {(problem: Problem, retry: () => void) => void} wantsKey
   */
  constructor(section, sidebar, server, wantsKey) {
    this.#place = one(section, ".turns");
    this.#heard = one(section, ".heard");
    this.#sidebar = sidebar;
    this.#server = server;
    this.#wantsKey = wantsKey;
    sidebar.addEventListener("answer-words", (event) => this.#shade(/** @type {CustomEvent} */ (event)));
    sidebar.addEventListener("whole", () => this.#selected?.selected());
    document.addEventListener("selectionchange", () => {
      for (const turn of this.#turns) turn.selectionChanged();
    });
  }

  /** Ask the model. @param {string} prompt */
  ask(prompt) {
    this.#answer(this.#add(prompt, this.#context(), false));
  }

  /**
   * Attribute an answer that somebody brings.
   * @param {string} prompt
   * @param {string} response
   * @param {readonly Message[]} [context]
   */
  bring(prompt, response, context = []) {
    const turn = this.#add(prompt, context, true);
    turn.append(response);
    turn.done();
    return turn;
  }

  /**
   * Let the sidebar tell what an answer came from.
   * @param {Turn} turn
   * @param {Parameters<Actions["trace"]>[1]} [part]
   */
  trace(turn, { span = null, alternative = null } = {}) {
    for (const other of this.#turns) if (other !== turn) other.selected(false);
    this.#selected = turn;
    turn.selected(true, span);
    const { prompt, response, context } = turn;
    const attribution = span || alternative ? null : turn.attribution;
    Object.assign(this.#sidebar, { prompt, response, context, span, alternative, attribution });
    turn.attribution = null; // it is new once: the filter may change
  }

  /** Shade what a document moved in the answer; the card need not show it where both are in sight. */
  #shade(/** @type {CustomEvent} */ event) {
    const turn = this.#selected;
    if (!turn?.shade(event.detail) || event.detail === null) return;
    const { left } = this.#sidebar.getBoundingClientRect();
    if (left < turn.node.getBoundingClientRect().right) return; // a phone: one lies below the other
    turn.showAnswer();
    event.preventDefault();
  }

  /** What was said so far, to the model. @returns {Message[]} */
  #context() {
    const last = this.#turns.findLast(({ own, response }) => !own && response);
    if (!last) return [];
    return [
      ...last.context,
      { role: "user", content: last.prompt },
      { role: "assistant", content: last.response },
    ];
  }

  /** @param {string} prompt @param {readonly Message[]} context @param {boolean} own */
  #add(prompt, context, own) {
    this.#writing.abort();
    const turn = new Turn(prompt, context, own, {
      trace: (turn, part) => {
        this.trace(turn, part);
        reveal(this.#sidebar);
      },
      unshade: () => this.#sidebar.hideWords(),
      again: (turn) => this.#answer(this.#add(turn.prompt, turn.context, false)),
      edit: (turn, place) =>
        editForm(turn, place, (response) => {
          turn.replace(response);
          this.trace(turn);
        }),
      compare: (turn, place) => {
        const others = this.#turns.filter((other) => other !== turn && other.prompt === turn.prompt);
        compareForm(turn, others, place, (alternative) => this.trace(turn, { alternative }));
      },
    });
    this.#turns.push(turn);
    this.#place.querySelector(".welcome")?.remove();
    this.#place.append(turn.node);
    turn.node.scrollIntoView({ block: "nearest" });
    return turn;
  }

  /** @param {Turn} turn */
  async #answer(turn) {
    const mine = (this.#writing = new AbortController());
    turn.response = "";
    turn.writing(() => mine.abort());
    this.#sidebar.wait("The model is writing its answer");
    try {
      const server = this.#server();
      this.#model ??= (await server.models(mine.signal)).data[0].id;
      const messages = [...turn.context, { role: "user", content: turn.prompt }];
      const body = { model: this.#model, messages, attribution: this.#sidebar.options };
      for await (const { text, attribution } of streamChat(server, body, mine.signal)) {
        if (text) turn.append(text);
        if (attribution) turn.attribution = attribution;
        follow(turn.node);
      }
    } catch (problem) {
      if (!mine.signal.aborted) return this.#failed(turn, /** @type {Problem} */ (problem));
    }
    turn.done();
    this.#heard.textContent = `The model answered: ${turn.response}`;
    if (turn.response && this.#turns.at(-1) === turn) this.trace(turn);
    else if (!turn.response) this.#sidebar.clear();
  }

  /** @param {Turn} turn @param {Problem} problem */
  #failed(turn, problem) {
    this.#model = null; // another one may be served by now
    const again = () => this.#answer(turn);
    turn.failed(problem, again);
    this.#sidebar.clear();
    if (problem.status === UNAUTHENTICATED) this.#wantsKey(problem, again);
  }
}

/** Keep the end of what is being written in view, unless somebody scrolled away from it. */
function follow(/** @type {HTMLElement} */ node) {
  const { bottom } = node.getBoundingClientRect();
  if (bottom > window.innerHeight && bottom < window.innerHeight + 120) {
    node.scrollIntoView({ block: "end" });
  }
}

/** On a phone the sidebar lies below: bring it into view without stealing the focus. */
function reveal(/** @type {HTMLElement} */ node) {
  if (node.getBoundingClientRect().top < window.innerHeight * 0.6) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  node.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}
