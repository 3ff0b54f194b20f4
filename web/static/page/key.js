/** The form that asks for an API key when the server wants one. */

import { one } from "../common/dom.js";
import { useKey } from "../common/key.js";

/** @typedef {import("../common/server.js").Problem} Problem */

/** The form that asks for one. */
export class KeyForm {
  #form;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {HTMLFormElement} form
   * @param {(key: string) => void} use
   */
  constructor(form, use) {
    this.#form = form;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = String(new FormData(form).get("key"));
      useKey(given);
      form.hidden = true;
      form.reset();
      use(given);
      for (const retry of this.#waiting.splice(0)) retry();
    });
  }

  /** @param {Problem} problem @param {() => void} [retry] */
  ask(problem, retry) {
    if (retry) this.#waiting.push(retry);
    one(this.#form, ".detail").textContent = problem.message;
    this.#form.hidden = false;
    one(this.#form, "input").focus();
  }
}
